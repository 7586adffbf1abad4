"""Bytes to actions: all that comes from outside is checked here, once (contract, sections 2 to 5).

Strict on purpose: an unknown field is refused, a number is not read from a string, and what a
later version brings is named as such instead of being accepted and ignored.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson
from marshmallow import RAISE, Schema, ValidationError, fields, validate

from common.domain.actions import (
    ChatCancelTaskAction,
    ChatGetStatusAction,
    ChatSendMessageAction,
    IfBusy,
    Priority,
    PushAction,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.callbacks import MAX_DEPTH, depth_of
from common.domain.errors import MalformedJson, ValidationFailed
from common.domain.events import RESERVED_TYPES
from common.domain.ids import OUTSIDE_ID, new_id
from config.settings import AgentSettings, ExecutionSettings

MAX_MESSAGE = 65_536  # characters
MAX_REASON = 1024
MAX_TARGETS = 1000
LARGEST_OFFSET = 2**53 - 1
KEY = re.compile(r"[\x20-\x7e]{1,128}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")

PRIORITIES = [str(each) for each in Priority]


class _Timeout(fields.Field[float]):
    """Seconds, as a JSON number. marshmallow's own Float would read strings and booleans."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self._most = most

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("Not a number.")
        if not 1 <= value <= self._most:
            raise ValidationError(f"Must be from 1 to {self._most:g} seconds.")
        return float(value)


class _Object(fields.Dict):
    """A JSON object."""

    def __init__(self, **options: Any) -> None:
        super().__init__(keys=fields.String(), **options)


def _id(*, required: bool = True, **options: Any) -> fields.String:
    pattern = f"^(?:{OUTSIDE_ID.pattern})\\Z"
    return fields.String(required=required, validate=validate.Regexp(pattern), **options)


def _task_id() -> fields.String:
    # Any word is looked up and not found; only what cannot be an id is refused.
    return fields.String(required=True, validate=validate.Length(min=1, max=128))


def _pushable(value: str) -> None:
    if not WORD.fullmatch(value):
        raise ValidationError("Must be a word of at most 64 letters, digits, _, ., : and -.")
    if value in RESERVED_TYPES:
        raise ValidationError(f"`{value}` is a frame of the orchestrator's own.")


class _Strict(Schema):
    class Meta:
        unknown = RAISE


class _SendMessage(_Strict):
    """The own fields of `chat.send_message`, as a client gives them."""

    agent_id = _id()
    message = fields.String(required=True, validate=validate.Length(min=1, max=MAX_MESSAGE))
    message_type = fields.String(validate=validate.Regexp(f"^(?:{WORD.pattern})\\Z"))
    user_info = _Object()
    context = _Object()
    priority = fields.String(validate=validate.OneOf(PRIORITIES))
    if_busy = fields.String(validate=validate.OneOf([str(each) for each in IfBusy]))
    user_id = _id(required=False, allow_none=True)
    metadata = _Object()


class _SendMessageTo(_SendMessage):
    tenant_id = _id()
    session_id = _id()


def _limited(schema: type[_SendMessage], max_timeout: float) -> Schema:
    """The schema with the settings' own limit of `timeout`."""
    made: type[Schema] = type(schema.__name__, (schema,), {"timeout": _Timeout(max_timeout)})
    return made()


class _Task(_Strict):
    task_id = _task_id()


class _TaskOf(_Task):
    tenant_id = _id()


class _Cancel(_Task):
    reason = fields.String(validate=validate.Length(max=MAX_REASON))


class _CancelOf(_Cancel):
    tenant_id = _id()


class _Push(_Strict):
    tenant_id = _id()
    user_id = _id(required=False, allow_none=True)
    metadata = _Object()
    action_id = fields.UUID()
    message_data = _Object(required=True)
    message_type = fields.String(validate=_pushable)


class _PushTo(_Push):
    session_id = _id()


class _PushToAll(_Push):
    target_sessions = fields.List(_id(), validate=validate.Length(min=1, max=MAX_TARGETS))


class _Queued(_Strict):
    """What an action on the stream `P`+`actions` has beside a push by REST."""

    action_id = fields.UUID(required=True)
    action_type = fields.String(required=True)
    created_at = fields.String()


class _QueuedPushTo(_PushTo, _Queued):
    action_id = fields.UUID(required=True)


class _QueuedPushToAll(_PushToAll, _Queued):
    action_id = fields.UUID(required=True)


def parse_object(body: bytes, *, deepest: int | None = MAX_DEPTH) -> dict[str, Any]:
    """JSON text to an object.

    Duplicate keys: the last one holds. NaN, lone surrogates and more than 1024 levels are no JSON.

    Raises:
        MalformedJson: it is no JSON.
        ValidationFailed: it is no object, or nested more than `deepest`.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"Not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValidationFailed("The body must be a JSON object.")
    if deepest is not None:
        check_depth(value, deepest)
    return value


def check_depth(value: object, deepest: int = MAX_DEPTH) -> None:
    """
    Raises:
        ValidationFailed: objects and lists are nested deeper.
    """
    if depth_of(value) > deepest:
        raise ValidationFailed(f"Objects and lists may be nested {deepest} deep.")


def fingerprint_of(body: Mapping[str, Any]) -> str:
    """The same for bodies that are equal by value: key order and 1 or 1.0 make no difference.

    Tenant and session are left out; a key is remembered for each session anyway.
    """
    own = {name: value for name, value in body.items() if name not in ("tenant_id", "session_id")}
    canonical = orjson.dumps(_plain(own), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def check_key(key: str, field: str = "Idempotency-Key") -> str:
    """An Idempotency-Key as it must be.

    Raises:
        ValidationFailed.
    """
    if not KEY.fullmatch(key):
        raise ValidationFailed(errors={field: ["Must be 1 to 128 printable ASCII characters."]})
    return key


def check_id(value: str, field: str) -> str:
    """An id from a path.

    Raises:
        ValidationFailed.
    """
    if not OUTSIDE_ID.fullmatch(value):
        raise ValidationFailed(errors={field: ["Not an id."]})
    return value


class Schemas:
    """All schemas, with the limits and defaults of the settings."""

    def __init__(self, execution: ExecutionSettings, agents: Mapping[str, AgentSettings]) -> None:
        self._execution = execution
        self._agents = agents
        self._send_to = _limited(_SendMessageTo, execution.max_timeout)
        self._send = _limited(_SendMessage, execution.max_timeout)
        self._task_of, self._task = _TaskOf(), _Task()
        self._cancel_of, self._cancel = _CancelOf(), _Cancel()
        self._push_to, self._push_to_all = _PushTo(), _PushToAll()
        self._queued = {
            WebSocketSendAction.action_type: _QueuedPushTo(),
            WebSocketBroadcastAction.action_type: _QueuedPushToAll(),
        }

    # REST bodies. Each raises ValidationFailed.

    def send_message(self, body: Mapping[str, Any], key: str | None) -> ChatSendMessageAction:
        return self._message(_load(self._send_to, body), body, key)

    def get_status(self, body: Mapping[str, Any]) -> ChatGetStatusAction:
        return ChatGetStatusAction(**_load(self._task_of, body))

    def cancel_task(self, body: Mapping[str, Any]) -> ChatCancelTaskAction:
        return ChatCancelTaskAction(**_load(self._cancel_of, body))

    def push(self, body: Mapping[str, Any]) -> WebSocketSendAction:
        return WebSocketSendAction(**_pushed(_load(self._push_to, body)))

    def broadcast(self, body: Mapping[str, Any]) -> WebSocketBroadcastAction:
        return WebSocketBroadcastAction(**_pushed(_load(self._push_to_all, body)))

    def requeued_message(self, action: Mapping[str, Any], key: str) -> ChatSendMessageAction:
        """A message that was a dead letter, as a client would send it again."""
        names = self._send_to.fields.keys() & action.keys()
        body = {name: action[name] for name in names if action[name] is not None}
        return self.send_message(body, key)

    # Data of client frames: the same without tenant and session, which the connection has.

    def send_message_frame(
        self, data: Mapping[str, Any], address: Mapping[str, Any], key: str | None
    ) -> ChatSendMessageAction:
        """`address`: the connection's `tenant_id`, `session_id`, and `user_id` if it has one."""
        return self._message({**address, **_load(self._send, data)}, data, key)

    def get_status_frame(self, data: Mapping[str, Any], tenant_id: str) -> ChatGetStatusAction:
        return ChatGetStatusAction(**_load(self._task, data), tenant_id=tenant_id)  # type: ignore[arg-type]

    def cancel_task_frame(self, data: Mapping[str, Any], tenant_id: str) -> ChatCancelTaskAction:
        return ChatCancelTaskAction(**_load(self._cancel, data), tenant_id=tenant_id)  # type: ignore[arg-type]

    # The stream of actions.

    def queued_push(self, text: bytes) -> PushAction:
        """An action as another service added it.

        Raises:
            ValidationFailed: also where it is no JSON.
        """
        try:
            body = parse_object(text)
        except MalformedJson as error:
            raise ValidationFailed(error.detail) from error
        kind = body.get("action_type")
        schema = self._queued.get(kind) if isinstance(kind, str) else None
        if schema is None:
            raise ValidationFailed(
                errors={"action_type": [f"Must be {' or '.join(self._queued)}."]}
            )
        loaded = _pushed(_load(schema, body))
        loaded.pop("created_at", None)
        make: Callable[..., PushAction] = (
            WebSocketSendAction
            if loaded.pop("action_type") == WebSocketSendAction.action_type
            else WebSocketBroadcastAction
        )
        return make(**loaded)

    def _message(
        self, loaded: dict[str, Any], body: Mapping[str, Any], key: str | None
    ) -> ChatSendMessageAction:
        agent = self._agents.get(loaded["agent_id"])
        default_timeout = agent.timeout if agent and agent.timeout else None
        loaded.setdefault("timeout", default_timeout or self._execution.default_timeout)
        loaded["priority"] = Priority(loaded.get("priority", Priority.NORMAL))
        default_if_busy = agent.if_busy if agent and agent.if_busy else IfBusy.ENQUEUE
        loaded["if_busy"] = IfBusy(loaded.get("if_busy", default_if_busy))
        return ChatSendMessageAction(
            **loaded,
            action_id=new_id(),
            idempotency_key=key,
            fingerprint=fingerprint_of(body) if key is not None else "",
        )


def _pushed(loaded: dict[str, Any]) -> dict[str, Any]:
    if "action_id" in loaded:
        loaded["action_id"] = str(loaded["action_id"])
    if "target_sessions" in loaded:
        loaded["target_sessions"] = tuple(loaded["target_sessions"])
    return loaded


def _load(schema: Schema, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(body)
    except ValidationError as error:
        _refuse(error)
    return loaded


def _refuse(error: ValidationError) -> NoReturn:
    messages = error.normalized_messages()  # type: ignore[no-untyped-call]
    raise ValidationFailed(errors=_flat(messages)) from error


def _flat(messages: Mapping[Any, Any], path: str = "") -> dict[str, list[str]]:
    """Field -> messages; a field within a list or object by its path, `target_sessions.3`."""
    flat: dict[str, list[str]] = {}
    for name, value in messages.items():
        where = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            flat.update(_flat(value, where))
        else:
            flat[where[:200]] = [str(each) for each in value]
    return flat
