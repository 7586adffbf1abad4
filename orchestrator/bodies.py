"""What requests and client frames say, field by field (contract, sections 2 and 3).

The same classes validate what comes in and are published as `GET /openapi.json`, so neither can
drift from the other. A field of our own says beside its check what it is as JSON Schema.
"""

import re
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from common.domain.actions import IfBusy, Priority
from common.domain.events import RESERVED_TYPES
from common.domain.ids import OUTSIDE_ID

MAX_MESSAGE = 65_536  # characters
MAX_REASON = 1024
MAX_TARGETS = 1000
MAX_TASK_ID = 128
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")

JsonSchema = dict[str, Any]


class Seconds(fields.Field[float]):
    """Seconds, as a JSON number. marshmallow's own Float would read strings and booleans."""

    def __init__(self, most: float, **options: Any) -> None:
        super().__init__(**options)
        self._most = most

    def json_schema(self) -> JsonSchema:
        return {"type": "number", "minimum": 1, "maximum": self._most}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError("Not a number.")
        if not 1 <= value <= self._most:
            raise ValidationError(f"Must be from 1 to {self._most:g} seconds.")
        return float(value)


class Object(fields.Dict):
    """A JSON object with whatever its sender likes."""

    def __init__(self, **options: Any) -> None:
        # Keys are not looked at one by one: what JSON is read to has texts for keys.
        super().__init__(**options)

    def json_schema(self) -> JsonSchema:
        return {"additionalProperties": True}


class Id(fields.String):
    """The name of a tenant, session, agent or user (contract, section 1)."""

    def __init__(self, **options: Any) -> None:
        pattern = f"^(?:{OUTSIDE_ID.pattern})\\Z"
        super().__init__(validate=validate.Regexp(pattern), **options)

    def json_schema(self) -> JsonSchema:
        # `\Z` is Python's; elsewhere `$` means the end, and nothing else.
        return {"pattern": f"^{OUTSIDE_ID.pattern}$", "minLength": 1, "maxLength": 128}


class Targets(fields.List[str]):
    """Sessions. Their number is looked at first: too many are not worth looking through."""

    def __init__(self, **options: Any) -> None:
        self._number = validate.Length(min=1, max=MAX_TARGETS)
        super().__init__(Id(required=True), validate=self._number, **options)

    def _deserialize(self, value: Any, *rest: Any, **options: Any) -> list[Any]:
        if isinstance(value, list):
            self._number(value)
        return super()._deserialize(value, *rest, **options)


class Word(fields.String):
    """A word that names a kind of message."""

    def __init__(self, **options: Any) -> None:
        super().__init__(validate=self._check, **options)

    def json_schema(self) -> JsonSchema:
        return {"pattern": f"^{WORD.pattern}$", "minLength": 1, "maxLength": 64}

    @staticmethod
    def _check(value: str) -> None:
        if not WORD.fullmatch(value):
            raise ValidationError("Must be a word of at most 64 letters, digits, _, ., : and -.")


class PushableWord(Word):
    """The kind of a push: any word that is no frame of the orchestrator's own (section 4)."""

    def json_schema(self) -> JsonSchema:
        return {**super().json_schema(), "not": {"enum": sorted(RESERVED_TYPES)}}

    @staticmethod
    def _check(value: str) -> None:
        Word._check(value)
        if value in RESERVED_TYPES:
            raise ValidationError(f"`{value}` is a frame of the orchestrator's own.")


def _task_id() -> fields.String:
    # Any word is looked up and not found; only what cannot be an id is refused.
    return fields.String(required=True, validate=validate.Length(min=1, max=MAX_TASK_ID))


class Strict(Schema):
    """A body whose unknown fields are refused."""

    class Meta:
        unknown = RAISE


class SendMessage(Strict):
    """The own fields of `chat.send_message`, as a client gives them."""

    agent_id = Id(required=True)
    message = fields.String(required=True, validate=validate.Length(min=1, max=MAX_MESSAGE))
    message_type = Word()
    user_info = Object()
    context = Object()
    priority = fields.String(validate=validate.OneOf([str(each) for each in Priority]))
    if_busy = fields.String(validate=validate.OneOf([str(each) for each in IfBusy]))
    user_id = Id(allow_none=True)
    metadata = Object()


class SendMessageTo(SendMessage):
    tenant_id = Id(required=True)
    session_id = Id(required=True)


def limited(schema: type[SendMessage], max_timeout: float) -> Schema:
    """The schema with the settings' own limit of `timeout`."""
    made: type[Schema] = type(schema.__name__, (schema,), {"timeout": Seconds(max_timeout)})
    return made()


class Task(Strict):
    task_id = _task_id()


class TaskOf(Task):
    tenant_id = Id(required=True)


class Cancel(Task):
    reason = fields.String(validate=validate.Length(max=MAX_REASON))


class CancelOf(Cancel):
    tenant_id = Id(required=True)


class Push(Strict):
    tenant_id = Id(required=True)
    user_id = Id(allow_none=True)
    metadata = Object()
    action_id = fields.UUID()
    message_data = Object(required=True)
    message_type = PushableWord()


class PushTo(Push):
    session_id = Id(required=True)


class PushToAll(Push):
    target_sessions = Targets()


class _Queued(Strict):
    """What an action on the stream `P`+`actions` has beside a push by REST."""

    action_id = fields.UUID(required=True)
    action_type = fields.String(required=True)
    created_at = fields.String()


class QueuedPushTo(PushTo, _Queued):
    action_id = fields.UUID(required=True)


class QueuedPushToAll(PushToAll, _Queued):
    action_id = fields.UUID(required=True)
