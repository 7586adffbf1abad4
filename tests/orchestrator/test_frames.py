"""A client frame is read once, into what a SessionActor understands or a refusal of it."""

from typing import Any

import orjson
import pytest

from actors.session_messages import Command, Connection, Ping, Refused
from common.domain.actions import ChatCancelTaskAction, ChatGetStatusAction, ChatSendMessageAction
from common.domain.errors import ValidationFailed
from common.domain.ids import SessionId, SessionKey, TenantId
from common.domain.resume import ResumeRequest
from config.settings import ExecutionSettings
from orchestrator.frames import Renewal, read_frame, token_of
from orchestrator.schemas import Schemas

CONNECTION = Connection(
    connection_id="c",
    session=SessionKey(TenantId("acme"), SessionId("s")),
    user_id="u-1",
    request=ResumeRequest(),
    compact=False,
)
SCHEMAS = Schemas(ExecutionSettings(), {})


def read(frame: Any) -> Command | Ping | Renewal | Refused:
    text = frame if isinstance(frame, str | bytes) else orjson.dumps(frame).decode()
    return read_frame(text, CONNECTION, SCHEMAS)


def test_each_command_becomes_its_action() -> None:
    for type_, data, kind in (
        ("chat.send_message", {"agent_id": "a", "message": "m"}, ChatSendMessageAction),
        ("chat.get_status", {"task_id": "t"}, ChatGetStatusAction),
        ("chat.cancel_task", {"task_id": "t", "reason": "r"}, ChatCancelTaskAction),
    ):
        command = read({"type": type_, "id": "i", "data": data})
        assert isinstance(command, Command)
        assert isinstance(command.action, kind)
        assert (command.id, command.action.tenant_id) == ("i", "acme")


def test_an_id_is_a_key_from_16_characters_on() -> None:
    for length, key in ((15, None), (16, "x" * 16), (128, "x" * 128)):
        data = {"agent_id": "a", "message": "m"}
        command = read({"type": "chat.send_message", "id": "x" * length, "data": data})
        assert isinstance(command, Command)
        assert isinstance(command.action, ChatSendMessageAction)
        assert command.action.idempotency_key == key


def test_the_connections_user_says_it_unless_the_frame_names_one() -> None:
    for named, user in (({}, "u-1"), ({"user_id": None}, "u-1"), ({"user_id": "u-2"}, "u-2")):
        message = {"agent_id": "a", "message": "m", **named}
        command = read({"type": "chat.send_message", "data": message})
        assert isinstance(command, Command)
        assert command.action.user_id == user


def test_a_ping_needs_no_data() -> None:
    assert read({"type": "ping"}) == Ping(None)
    assert read({"type": "ping", "id": "i", "data": {"any": 1}}) == Ping("i")


def test_a_renewal_holds_one_token() -> None:
    renewal = read({"type": "auth.refresh", "id": "i", "data": {"token": "t"}})
    assert isinstance(renewal, Renewal)
    assert (renewal.id, token_of(renewal)) == ("i", "t")
    for data, wrong in (({}, "token"), ({"token": 1}, "token"), ({"token": "t", "x": 1}, "x")):
        with pytest.raises(ValidationFailed) as caught:
            token_of(Renewal(None, data))
        assert caught.value.errors is not None
        assert caught.value.errors.keys() == {wrong}


def test_what_is_bad_counts_and_what_is_refused_does_not() -> None:
    for frame, is_bad, code in (
        (b"{}", True, "bad_request"),
        ("{", True, "malformed_json"),
        ("[]", True, "bad_request"),
        ({"type": "x"}, True, "bad_request"),
        ({"type": "ping", "id": 1}, False, "validation_failed"),
        ({"type": "ping", "data": 1}, False, "validation_failed"),
        ({"type": "ping", "x": 1}, False, "validation_failed"),
    ):
        refused = read(frame)
        assert isinstance(refused, Refused)
        assert (refused.is_bad, refused.error.code) == (is_bad, code)


def test_an_integer_that_some_would_round_is_refused_and_is_not_bad() -> None:
    data = '{"agent_id": "echo", "message": "hi", "context": {"n": 18446744073709551616}}'
    refused = read(f'{{"type": "chat.send_message", "data": {data}}}')
    assert isinstance(refused, Refused)
    assert not refused.is_bad
    assert refused.error.code == "validation_failed"
