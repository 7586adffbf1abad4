"""Client frames to what a SessionActor understands (contract, section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.session_messages import Command, Connection, Ping, Refused
from common.domain.errors import (
    BadRequest,
    MalformedJson,
    OrchestratorError,
    ValidationFailed,
)
from orchestrator.schemas import (
    Schemas,
    check_json,
    check_key,
    parse_object,
    unknown_errors,
    unknown_fields,
)

LONGEST_ID = 128  # characters
IDEMPOTENT_FROM = 16  # characters; a shorter id only correlates

FRAME_FIELDS = frozenset({"type", "id", "data"})


@dataclass(frozen=True, slots=True)
class Renewal:
    """`auth.refresh`: the client has a new token, which is still to be looked at."""

    id: str | None
    data: Mapping[str, Any]


def read_frame(
    message: str | bytes, connection: Connection, schemas: Schemas
) -> Command | Ping | Renewal | Refused:
    """Reads one frame. What cannot be served comes back as `Refused`, never as an exception."""
    if isinstance(message, bytes):
        return Refused(None, BadRequest("Frames must be text."), is_bad=True)
    text = message.encode()
    try:
        frame = parse_object(text, deepest=None)
    except MalformedJson as error:
        return Refused(None, error, is_bad=True)
    except ValidationFailed as error:
        return Refused(None, BadRequest(error.detail), is_bad=True)
    told = frame.get("id")  # as far as it can be repeated, so that the answer finds its question
    id_ = told if isinstance(told, str) and 0 < len(told) <= LONGEST_ID else None
    if frame.get("type") not in KNOWN:
        return Refused(id_, BadRequest("Unknown type of frame."), is_bad=True)
    try:
        _check_id(told)
        if isinstance(data := frame.get("data"), dict):
            check_json(data, text)
        return _read(frame, id_, connection, schemas)
    except OrchestratorError as error:
        return Refused(id_, error, is_bad=False)


KNOWN = ("chat.send_message", "chat.get_status", "chat.cancel_task", "ping", "auth.refresh")


def _check_id(id_: object) -> None:
    """One of 16 characters or more is an Idempotency-Key; a shorter one may be any text."""
    if id_ is None:
        return
    if not isinstance(id_, str) or not id_:
        raise ValidationFailed(errors={"id": ["Must be a string, and not empty."]})
    if len(id_) >= IDEMPOTENT_FROM:
        check_key(id_, "id")


def _read(
    frame: Mapping[str, Any], id_: str | None, connection: Connection, schemas: Schemas
) -> Command | Ping | Renewal:
    if unknown := unknown_fields(frame, FRAME_FIELDS):
        raise ValidationFailed(errors=unknown_errors(unknown))
    data = frame.get("data", {})
    if not isinstance(data, dict):
        raise ValidationFailed(errors={"data": ["Must be an object."]})
    tenant_id = connection.session.tenant_id
    match frame["type"]:
        case "ping":
            return Ping(id_)
        case "auth.refresh":
            return Renewal(id_, data)
        case "chat.send_message":
            key = id_ if id_ is not None and len(id_) >= IDEMPOTENT_FROM else None
            return Command(id_, schemas.send_message_frame(data, _address(connection), key))
        case "chat.get_status":
            return Command(id_, schemas.get_status_frame(data, tenant_id))
        case _:
            return Command(id_, schemas.cancel_task_frame(data, tenant_id))


def token_of(renewal: Renewal) -> str:
    """The new token.

    Raises:
        ValidationFailed.
    """
    errors = unknown_errors(unknown_fields(renewal.data, {"token"}))
    token = renewal.data.get("token")
    if not isinstance(token, str) or not token:
        errors["token"] = ["Must be a token."]
    if errors:
        raise ValidationFailed(errors=errors)
    return str(token)


def _address(connection: Connection) -> dict[str, Any]:
    return {
        "tenant_id": connection.session.tenant_id,
        "session_id": connection.session.session_id,
        "user_id": connection.user_id,
    }
