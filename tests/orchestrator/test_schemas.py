"""What the edge takes and what it refuses: every field at its limit, one below, one above."""

from typing import Any

import orjson
import pytest

from common.domain.actions import (
    ChatSendMessageAction,
    Priority,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.errors import MalformedJson, ValidationFailed
from config.settings import AgentSettings, ExecutionSettings
from orchestrator.schemas import (
    Schemas,
    check_id,
    check_json,
    check_key,
    fingerprint_of,
    parse_object,
)

SCHEMAS = Schemas(ExecutionSettings(), {"slow": AgentSettings(timeout=1200.0)})
SEND = {"tenant_id": "acme", "session_id": "s-1", "agent_id": "echo", "message": "hi"}
PUSH = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"a": 1}}
BROADCAST = {"tenant_id": "acme", "message_data": {"a": 1}}
TASK = {"tenant_id": "acme", "task_id": "t-1"}
UUID = "7d444840-9dc0-11d1-b245-5ffdce74fad2"


def nested(depth: int) -> dict[str, Any]:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return dict(value)


BAD_IDS = [
    "",
    ".a",
    "-a",
    "a" * 129,
    "a{b}",
    "a\n",
    "a\nb",
    "a b",
    "a:b",
    "a/b",
    "ä",
    "a\x00",
    "*",
    7,
    None,
    True,
    ["a"],
    {},
]


@pytest.mark.parametrize("field", ["tenant_id", "session_id", "agent_id", "user_id"])
@pytest.mark.parametrize("value", BAD_IDS, ids=repr)
def test_an_id_that_is_none_is_refused_by_name(field: str, value: Any) -> None:
    if field == "user_id" and value is None:
        assert SCHEMAS.send_message({**SEND, field: None}, None).user_id is None
        return
    assert errors_of(SCHEMAS.send_message, {**SEND, field: value}, None).keys() == {field}


@pytest.mark.parametrize("field", ["tenant_id", "session_id", "agent_id", "user_id"])
@pytest.mark.parametrize("value", ["a", "A9", "a" * 128, "a_b.c@d-e"])
def test_an_id_that_is_one_is_taken(field: str, value: str) -> None:
    assert getattr(SCHEMAS.send_message({**SEND, field: value}, None), field) == value


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        ("message", ["x", "x" * 65_535, "x" * 65_536, "😀" * 65_536], ["", "x" * 65_537, None, 5]),
        ("timeout", [1, 1.0, 3599.5, 3600], [0.999, 0, -1, 3600.5, "5", True, None, 2**64, 1e300]),
        ("priority", ["high", "normal", "low"], ["urgent", "", None, 1, "HIGH"]),
        ("message_type", ["text", "a" * 64], ["", "a" * 65, "a b", "text\n", None, 5]),
        ("user_info", [{}, {"a": [1]}], [[], "x", None, 1]),
        ("context", [{}, {"a": {"b": None}}], [[], "x", None]),
        ("metadata", [{}, {"a": 1}], [[], "x", None]),
        ("if_busy", ["parallel"], ["never", None, 1]),
        ("unknown", [], [1, None]),
        ("action_id", [], [UUID]),
    ],
)
def test_each_field_of_a_message_has_its_limits(
    field: str, taken: list[Any], refused: list[Any]
) -> None:
    for value in taken:
        made = SCHEMAS.send_message({**SEND, field: value}, None)
        assert getattr(made, field) == value
    for value in refused:
        assert errors_of(SCHEMAS.send_message, {**SEND, field: value}, None).keys() == {field}


@pytest.mark.parametrize("field", list(SEND))
def test_a_missing_field_is_named(field: str) -> None:
    body = {name: value for name, value in SEND.items() if name != field}
    assert errors_of(SCHEMAS.send_message, body, None).keys() == {field}


def test_all_mistakes_are_told_at_once() -> None:
    assert errors_of(SCHEMAS.send_message, {"x": 1, "timeout": "a"}, None).keys() == {
        *("x", "timeout", "tenant_id", "session_id", "agent_id", "message")
    }


def test_what_is_absent_has_its_default() -> None:
    action = SCHEMAS.send_message(SEND, None)
    assert (action.timeout, action.priority, action.message_type) == (300, Priority.NORMAL, "text")
    assert (action.user_info, action.context, action.metadata) == ({}, {}, {})


def test_an_agent_may_have_a_timeout_of_its_own() -> None:
    assert SCHEMAS.send_message({**SEND, "agent_id": "slow"}, None).timeout == 1200


def test_each_message_is_a_task_of_its_own() -> None:
    first, second = (SCHEMAS.send_message(SEND, "key") for _ in range(2))
    assert first.task_id != second.task_id
    assert first.fingerprint == second.fingerprint
    assert first.idempotency_key == "key"


def test_a_frame_has_the_address_of_its_connection() -> None:
    address = {"tenant_id": "acme", "session_id": "s-1", "user_id": "u-1"}
    action = SCHEMAS.send_message_frame({"agent_id": "echo", "message": "hi"}, address, None)
    assert (action.session.tenant_id, action.session_id, action.user_id) == ("acme", "s-1", "u-1")
    for field in ("tenant_id", "session_id"):
        data = {"agent_id": "echo", "message": "hi", field: "other"}
        assert errors_of(SCHEMAS.send_message_frame, data, address, None).keys() == {field}


def test_a_frame_and_a_body_of_equal_content_are_one_message() -> None:
    body = SCHEMAS.send_message(SEND, "key")
    address = {"tenant_id": "acme", "session_id": "s-1", "user_id": "u-1"}
    frame = SCHEMAS.send_message_frame({"message": "hi", "agent_id": "echo"}, address, "key")
    assert frame.fingerprint == body.fingerprint


@pytest.mark.parametrize("value", ["", "x" * 129, None, 1])
def test_a_task_id_that_cannot_be_one_is_refused(value: Any) -> None:
    for check in (SCHEMAS.get_status, SCHEMAS.cancel_task):
        assert errors_of(check, {**TASK, "task_id": value}).keys() == {"task_id"}


def test_a_cancel_may_have_a_reason_of_1024_characters() -> None:
    assert SCHEMAS.cancel_task({**TASK, "reason": "x" * 1024}).reason == "x" * 1024
    assert SCHEMAS.cancel_task(TASK).reason == ""
    for reason in ("x" * 1025, None, 1):
        assert errors_of(SCHEMAS.cancel_task, {**TASK, "reason": reason}).keys() == {"reason"}


@pytest.mark.parametrize("word", ["agent_response", "broadcast", "my.own-word:1", "a" * 64])
def test_a_push_may_be_of_any_word_that_is_not_ours(word: str) -> None:
    assert SCHEMAS.push({**PUSH, "message_type": word}).message_type == word
    assert SCHEMAS.broadcast({**BROADCAST, "message_type": word}).message_type == word


@pytest.mark.parametrize(
    "word",
    [
        *("connection_ack", "user_message", "task_update", "agent_delta", "agent_event", "error"),
        *("typing_indicator", "ack", "pong", "reconnect", "", "a" * 65, 'a"b', "a\n", None, 1),
    ],
)
def test_a_push_may_not_pass_for_a_frame_of_ours(word: Any) -> None:
    assert errors_of(SCHEMAS.push, {**PUSH, "message_type": word}).keys() == {"message_type"}
    assert errors_of(SCHEMAS.broadcast, {**BROADCAST, "message_type": word}).keys() == {
        "message_type"
    }


def test_a_push_says_what_it_is_by_default() -> None:
    assert SCHEMAS.push(PUSH).message_type == "agent_response"
    assert SCHEMAS.broadcast(BROADCAST).message_type == "broadcast"
    assert SCHEMAS.broadcast(BROADCAST).target_sessions is None


@pytest.mark.parametrize("field", ["message_data", "metadata"])
@pytest.mark.parametrize("value", [[], "x", None, 1])
def test_what_a_push_carries_is_an_object(field: str, value: Any) -> None:
    assert errors_of(SCHEMAS.push, {**PUSH, field: value}).keys() == {field}


@pytest.mark.parametrize("value", ["x", "", 5, None, {}, f"{UUID}0"])
def test_an_action_id_is_a_uuid(value: Any) -> None:
    assert errors_of(SCHEMAS.push, {**PUSH, "action_id": value}).keys() == {"action_id"}
    assert SCHEMAS.push({**PUSH, "action_id": UUID}).action_id == UUID
    assert SCHEMAS.push({**PUSH, "action_id": UUID.upper()}).action_id == UUID


def test_a_broadcast_names_1_to_1000_sessions() -> None:
    for count in (1, 999, 1000):
        targets = [f"s-{i}" for i in range(count)]
        made = SCHEMAS.broadcast({**BROADCAST, "target_sessions": targets})
        assert made.target_sessions == tuple(targets)
    wrong: Any
    for wrong in ([], [f"s-{i}" for i in range(1001)], None, "s-1", {}):
        body = {**BROADCAST, "target_sessions": wrong}
        assert errors_of(SCHEMAS.broadcast, body).keys() == {"target_sessions"}


def test_a_wrong_target_is_told_by_its_place() -> None:
    body = {**BROADCAST, "target_sessions": ["a", "b", "c}"]}
    assert errors_of(SCHEMAS.broadcast, body).keys() == {"target_sessions.2"}


def test_a_queued_push_is_read_as_one_by_rest() -> None:
    action = {
        **PUSH,
        "action_id": UUID,
        "action_type": "websocket.send_message",
        "created_at": "2026-01-31T10:00:00.123Z",
    }
    made = SCHEMAS.queued_push(orjson.dumps(action))
    assert isinstance(made, WebSocketSendAction)
    assert made.action_id == UUID
    broadcast = {**BROADCAST, "action_id": UUID, "action_type": "websocket.broadcast"}
    assert isinstance(SCHEMAS.queued_push(orjson.dumps(broadcast)), WebSocketBroadcastAction)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no JSON",
        b"[]",
        b"\xff",
        b"{}",
        orjson.dumps({**PUSH, "action_id": UUID}),
        orjson.dumps({**PUSH, "action_id": UUID, "action_type": "chat.send_message"}),
        orjson.dumps({**PUSH, "action_id": UUID, "action_type": ["websocket.broadcast"]}),
        orjson.dumps({**PUSH, "action_type": "websocket.send_message"}),
        orjson.dumps({**PUSH, "action_id": "x", "action_type": "websocket.send_message"}),
        orjson.dumps({**PUSH, "action_id": UUID, "action_type": "websocket.broadcast"}),
    ],
)
def test_a_queued_push_that_cannot_be_read_is_refused(text: bytes) -> None:
    with pytest.raises(ValidationFailed):
        SCHEMAS.queued_push(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": 1}{"b": 2}',
        b'{"a": 01}',
        b'{"a": "\n"}',
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
    ],
)
def test_what_is_no_json_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedJson):
        parse_object(text)


@pytest.mark.parametrize("text", [b"[]", b"null", b"1", b'"a"', b"true"])
def test_json_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValidationFailed):
        parse_object(text)


def test_objects_may_be_nested_32_deep() -> None:
    assert parse_object(orjson.dumps(nested(32)))
    with pytest.raises(ValidationFailed):
        parse_object(orjson.dumps(nested(33)))
    with pytest.raises(ValidationFailed):
        parse_object(b'{"a":' + b"[" * 32 + b"]" * 32 + b"}")
    assert parse_object(orjson.dumps(nested(33)), deepest=None)
    with pytest.raises(ValidationFailed):
        check_json([[]], b"", deepest=1)


def test_of_two_equal_keys_the_last_holds() -> None:
    assert parse_object(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    "value",
    [
        *(2**53 + 1, 2**63, 2**64 - 1, -(2**63)),
        *(1e300, 1e19, 0.1234567890123456789, "1" * 400, "18446744073709551616"),
    ],
)
def test_a_number_that_is_kept_as_it_is_is_taken(value: Any) -> None:
    assert parse_object(orjson.dumps({"a": [{"b": value}]})) == {"a": [{"b": value}]}


@pytest.mark.parametrize(
    "number",
    [
        *(str(number) for number in (2**64, -(2**63) - 1, -(2**64))),
        "1" * 21,
        "1" * 308,
    ],
)
def test_an_integer_that_would_be_rounded_is_refused(number: str) -> None:
    text = b'{"a": [{"b": %b}]}' % number.encode()
    with pytest.raises(ValidationFailed):
        parse_object(text)
    with pytest.raises(ValidationFailed):
        parse_object(text.replace(b'"a"', b'"hidden": 1, "a"').replace(b"}]}", b'}], "a": 1}'))


def test_what_an_equal_key_hides_may_be_deep_but_breaks_nothing() -> None:
    hidden = b'{"n": 123456789012345678901, "a": ' + b"[" * 1000 + b"]" * 1000 + b', "a": 1}'
    with pytest.raises(ValidationFailed):
        parse_object(hidden)


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": {"x": [1, {"y": 2.0, "z": 0}]}}, {"a": {"x": [1.0, {"z": -0.0, "y": 2}]}}, True),
        ({"tenant_id": "a", "m": 1}, {"m": 1, "tenant_id": "b", "session_id": "c"}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": None}, {}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 2**53}, {"a": 2**53 + 1}, False),
    ],
)
def test_bodies_are_compared_by_value(
    one: dict[str, Any], other: dict[str, Any], *, are_equal: bool
) -> None:
    assert (fingerprint_of(one) == fingerprint_of(other)) is are_equal


def test_a_key_is_1_to_128_printable_characters() -> None:
    for key in ("k", "k" * 127, "k" * 128, " ~{}:"):
        assert check_key(key) == key
    for key in ("", "k" * 129, "ä", "a\n", "a\tb", "\x7f"):
        with pytest.raises(ValidationFailed) as caught:
            check_key(key)
        assert caught.value.errors is not None
        assert caught.value.errors.keys() == {"Idempotency-Key"}


def test_an_id_of_a_path_is_checked_like_any_other() -> None:
    assert check_id("a" * 128, "session_id") == "a" * 128
    for value in ("a" * 129, "a\n", "a/b", ""):
        with pytest.raises(ValidationFailed):
            check_id(value, "session_id")


def test_a_long_unknown_name_is_not_repeated_in_full() -> None:
    (name,) = errors_of(SCHEMAS.send_message, {**SEND, "x" * 10_000: 1}, None)
    assert len(name) == 200


def test_an_action_is_checked_once_and_frozen() -> None:
    action = SCHEMAS.send_message(SEND, None)
    assert isinstance(action, ChatSendMessageAction)
    with pytest.raises(AttributeError):
        action.message = "other"  # type: ignore[misc]


def errors_of(load: Any, *arguments: Any) -> dict[str, Any]:
    with pytest.raises(ValidationFailed) as caught:
        load(*arguments)
    assert caught.value.errors is not None
    return dict(caught.value.errors)
