"""Bytes to actions: all that comes from outside is checked here, once (contract, sections 2 to 5).

Strict on purpose: an unknown field is refused, a number is not read from a string, and what a
later version brings is named as such instead of being accepted and ignored.
"""

import gc
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

import orjson
from marshmallow import Schema, ValidationError

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
from common.domain.callbacks import MAX_DEPTH, extent_of
from common.domain.errors import MalformedJson, ValidationFailed
from common.domain.ids import OUTSIDE_ID, new_id
from config.settings import AgentSettings, ExecutionSettings
from orchestrator import bodies

LARGEST_OFFSET = 2**53 - 1
PLAIN = frozenset({str, int, bool, type(None)})  # what has one way to be written
KEY = re.compile(r"[\x20-\x7e]{1,128}")
LARGEST_INTEGER, SMALLEST_INTEGER = 2**64 - 1, -(2**63)
LARGEST_DIGITS, SMALLEST_DIGITS = b"%d" % LARGEST_INTEGER, b"%d" % SMALLEST_INTEGER  # 20 each
# As long as these at least, and no fraction, no exponent, no part of another number.
LONG_INTEGER = re.compile(rb"(?<![0-9.eE+-])(?:-|[0-9])[0-9]{19,}+(?![0-9.eE])")

MAX_VALUES = 50_000  # of one body or frame; each is looked at, which takes the loop's time
MAX_NAMED = 100  # fields that one refusal names
MAX_UNKNOWN = 50  # fields; with more a body is refused for them alone ...
UNKNOWN_NAMED = 20  # ... and that many are named
LONGEST_NAME = 200  # characters of a field's name, as a refusal tells it


def parse_object(
    text: bytes, *, deepest: int | None = MAX_DEPTH, most: int = MAX_VALUES
) -> dict[str, Any]:
    """JSON text to an object: the project's one way of reading what came from outside.

    What is not JSON by the letter of RFC 8259 is malformed: NaN and Infinity, numbers beyond a
    double, lone surrogates, a byte order mark, control characters, what is not UTF-8, and more than
    1024 levels. What is JSON, but means different things to different readers:

    - Of equal keys the last one holds, as nearly everywhere; the body is one value from here on,
      so nobody behind this can read another one into it.
    - Integers of up to 64 bits are passed on digit by digit; what is longer would silently become
      another number here, and is refused. Beyond 2**53 - 1 browsers round: an id is a string.
      (`check_json`; with `deepest` None it is left to the caller, as are depth and number.)

    Raises:
        MalformedJson: it is no JSON.
        ValidationFailed: it is no object, nested more than `deepest`, holds more than `most`
            values, or has such an integer.
    """
    try:
        value = _loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(f"Not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValidationFailed("The body must be a JSON object.")
    if deepest is not None:
        check_json(value, text, deepest, most)
    return value


def _loads(text: bytes) -> Any:
    """Reads JSON without a pause in it: countless small lists would set the collector of garbage
    off again and again, to walk over all those before."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(text)
    finally:
        if is_on:
            gc.enable()


def check_json(
    value: object, text: bytes, deepest: int = MAX_DEPTH, most: int = MAX_VALUES
) -> None:
    """What `value`, read from `text`, has to be beyond valid JSON.

    Raises:
        ValidationFailed: it holds more values, objects and lists are nested deeper, or an integer
            is not exact.
    """
    extent = extent_of(value, most)
    if extent.values > most:
        raise ValidationFailed(f"There may be {most} values, those within others counted.")
    if extent.depth > deepest:
        raise ValidationFailed(f"Objects and lists may be nested {deepest} deep.")
    if _has_longer_integer(text):
        raise ValidationFailed("Integers may have 64 bits; use a string for longer ones.")


def _has_longer_integer(text: bytes) -> bool:
    """Whether valid JSON has an integer beyond 64 bits, be it hidden by an equal key. One within a
    string is none: before it stands an odd number of quotes."""
    if LONG_INTEGER.search(text) is None:  # nearly always
        return False
    unescaped = text.replace(rb"\\", b"").replace(rb"\"", b"")
    quotes = upto = 0
    for found in LONG_INTEGER.finditer(unescaped):
        if _is_exact(found[0]):
            continue
        quotes += unescaped.count(b'"', upto, found.start())
        upto = found.start()
        if quotes % 2 == 0:
            return True
    return False


def _is_exact(digits: bytes) -> bool:
    most = SMALLEST_DIGITS if digits.startswith(b"-") else LARGEST_DIGITS
    return len(digits) == len(most) and digits <= most  # none is shorter


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
    # Most values are asked for their type only: a call for each would take twice as long.
    if isinstance(value, dict):
        return {key: each if type(each) in PLAIN else _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [each if type(each) in PLAIN else _plain(each) for each in value]
    return value


def unknown_fields(body: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """The names of a body's fields that are none, in its order."""
    return [name for name in body if name not in known]


def unknown_errors(unknown: Iterable[str]) -> dict[str, list[str]]:
    """Names some of them: an answer is no copy of the request."""
    return {name[:LONGEST_NAME]: ["Unknown field."] for name in islice(unknown, UNKNOWN_NAMED)}


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
        self._send_to = bodies.limited(bodies.SendMessageTo, execution.max_timeout)
        self._send = bodies.limited(bodies.SendMessage, execution.max_timeout)
        self._task_of, self._task = bodies.TaskOf(), bodies.Task()
        self._cancel_of, self._cancel = bodies.CancelOf(), bodies.Cancel()
        self._push_to, self._push_to_all = bodies.PushTo(), bodies.PushToAll()
        self._queued = {
            WebSocketSendAction.action_type: bodies.QueuedPushTo(),
            WebSocketBroadcastAction.action_type: bodies.QueuedPushToAll(),
        }

    @property
    def published(self) -> Mapping[str, Schema]:
        """The schemas of REST bodies, by the names that the OpenAPI document gives them."""
        return {
            "SendMessage": self._send_to,
            "GetStatus": self._task_of,
            "CancelTask": self._cancel_of,
            "Push": self._push_to,
            "Broadcast": self._push_to_all,
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
        loaded = _load(self._send, data)
        if loaded.get("user_id") is None:  # `null` names nobody else than the connection's own
            loaded.pop("user_id", None)
        return self._message({**address, **loaded}, data, key)

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
    unknown = unknown_fields(body, schema.fields.keys())
    if len(unknown) > MAX_UNKNOWN:
        raise ValidationFailed(
            f"There are {len(unknown)} unknown fields.", errors=unknown_errors(unknown)
        )
    try:
        loaded: dict[str, Any] = schema.load(body)
    except ValidationError as error:
        _refuse(error)
    return loaded


def _refuse(error: ValidationError) -> NoReturn:
    messages = error.normalized_messages()  # type: ignore[no-untyped-call]
    raise ValidationFailed(errors=dict(islice(_flat(messages), MAX_NAMED))) from error


def _flat(messages: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Field, messages; a field within a list or object by its path, `target_sessions.3`."""
    for name, value in messages.items():
        where = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, where)
        else:
            yield where[:LONGEST_NAME], [str(each) for each in value]
