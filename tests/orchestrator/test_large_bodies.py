"""Bodies that are made to keep the loop busy: refused before much is done, in few words."""

import contextlib
import gc
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from actors.session_messages import Command, Connection, Ping, Refused
from common.domain.errors import OrchestratorError, ValidationFailed
from common.domain.ids import SessionId, SessionKey, TenantId
from common.domain.resume import ResumeRequest
from config.settings import ExecutionSettings
from orchestrator.frames import Renewal, read_frame, token_of
from orchestrator.problems import problem_body
from orchestrator.schemas import MAX_VALUES, Schemas, parse_object
from tests.support.figures import measured

SCHEMAS = Schemas(ExecutionSettings(), {})
CONNECTION = Connection(
    connection_id="c",
    session=SessionKey(TenantId("acme"), SessionId("s")),
    user_id="u-1",
    request=ResumeRequest(),
    compact=False,
)
SEND = {"tenant_id": "acme", "session_id": "s-1", "agent_id": "echo", "message": "hi"}
BROADCAST = {"tenant_id": "acme", "message_data": {"a": 1}}
UNKNOWN = {f"unknown-{number}": 1 for number in range(25_000)}

BUSY_MOST = 0.1  # seconds; on a processor of today none takes half of that

Read = Callable[[bytes], object]


def send(text: bytes) -> object:
    return SCHEMAS.send_message(parse_object(text), "a-key-of-its-sender")


def broadcast(text: bytes) -> object:
    return SCHEMAS.broadcast(parse_object(text))


def frame(text: bytes) -> Command | Ping | Renewal:
    """A frame's meaning; its refusal raised, as that of a body is."""
    read = read_frame(text.decode(), CONNECTION, SCHEMAS)
    if isinstance(read, Refused):
        raise read.error
    return read


def refresh(text: bytes) -> object:
    renewal = frame(text)
    assert isinstance(renewal, Renewal)
    return token_of(renewal)


def refusal_of(read: Read, text: bytes) -> OrchestratorError | None:
    try:
        read(text)
    except OrchestratorError as error:
        return error
    return None


def context(text: bytes) -> bytes:
    return orjson.dumps(SEND)[:-1] + b',"context":{"a":%b}}' % text


def many(value: bytes, times: int) -> bytes:
    return b"[%b]" % b",".join([value] * times)


HIDDEN = b'{"a":%b,"a":12345678901234567890}' % many(b"1", 500_000)
HIDDEN_TEXTS = b'{"a":%b,"a":12345678901234567890}' % many(b'""', 300_000)
TARGETS = orjson.dumps(BROADCAST)[:-1] + b',"target_sessions":%b}'
MESSAGE = {"agent_id": "a", "message": "m", **UNKNOWN}

REFUSED: list[tuple[str, Read, bytes]] = [
    ("targets that are none", broadcast, TARGETS % many(b"1", 520_000)),
    ("targets by the thousand", broadcast, TARGETS % many(b'"x"', 250_000)),
    ("targets without end", broadcast, TARGETS % many(b'"x"', MAX_VALUES - 100)),
    ("unknown fields", send, orjson.dumps({**SEND, **UNKNOWN})),
    ("lists", send, context(many(b"[]", 340_000))),
    ("objects", send, context(many(b"{}", 340_000))),
    ("numbers", send, context(many(b"1", 520_000))),
    ("names", send, context(orjson.dumps({str(number): 1 for number in range(90_000)}))),
    ("unknown fields of a frame", frame, orjson.dumps({"type": "ping", **UNKNOWN})),
    ("unknown data", frame, orjson.dumps({"type": "chat.send_message", "data": MESSAGE})),
    (
        "unknown data beside a token",
        refresh,
        orjson.dumps({"type": "auth.refresh", "data": UNKNOWN}),
    ),
]
TAKEN: list[tuple[str, Read, bytes]] = [
    ("lists within bounds", send, context(many(b"[]", MAX_VALUES - 10))),
    ("numbers within bounds", send, context(many(b"1.0", MAX_VALUES - 10))),
    (
        "names within bounds",
        send,
        context(orjson.dumps({str(number): 1 for number in range(MAX_VALUES - 10)})),
    ),
    ("long integers", send, context(many(b"12345678901234567890", 45_000))),
    ("texts of digits", send, context(many(b'"123456789012345678901"', 42_000))),
    ("texts, and a long integer", send, context(HIDDEN_TEXTS)),
    ("a text of digits", send, context(b'"%b"' % many(b"123456789012345678901", 45_000))),
    ("hidden numbers, and a long one", send, context(HIDDEN)),
]


@pytest.mark.parametrize(
    ("read", "text"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_is_too_much_is_refused_in_few_words(read: Read, text: bytes) -> None:
    error = refusal_of(read, text)
    assert isinstance(error, ValidationFailed)
    assert len(problem_body(error, "request-1")) < 10_000


@pytest.mark.parametrize(
    ("read", "text"), [case[1:] for case in TAKEN], ids=[case[0] for case in TAKEN]
)
def test_what_is_within_bounds_is_taken(read: Read, text: bytes) -> None:
    assert refusal_of(read, text) is None


@pytest.mark.alone
def test_no_body_takes_the_loop_from_others_for_long() -> None:
    """By the processor's time, which no other process makes longer: the best of five."""
    for name, read, text in [*REFUSED, *TAKEN]:
        took = []
        for _ in range(5):
            began = time.thread_time()
            error = refusal_of(read, text)
            if error is not None:
                problem_body(error, "request-1")
            took.append(time.thread_time() - began)
        measured(f"reading of {name}", min(took) * 1000, "ms")
        assert min(took) < BUSY_MOST, name


def test_a_body_may_hold_so_many_values_and_no_more() -> None:
    """The object itself, the list, and what is in it."""
    for value in (b"1", b"{}", b'"x"'):
        parse_object(b'{"a":%b}' % many(value, MAX_VALUES - 2))
        with pytest.raises(ValidationFailed, match="50000 values"):
            parse_object(b'{"a":%b}' % many(value, MAX_VALUES - 1))


def test_a_frames_data_may_hold_so_many_values_and_no_more() -> None:
    for more, is_refused in ((0, False), (1, True)):
        held = {"agent_id": "a", "message": "m", "context": {"a": [1] * (MAX_VALUES - 5 + more)}}
        text = orjson.dumps({"type": "chat.send_message", "data": held})
        assert (refusal_of(frame, text) is not None) is is_refused


def test_of_many_unknown_fields_the_first_are_named() -> None:
    for count, named in ((1, 1), (50, 50), (51, 20), (25_000, 20)):
        unknown: dict[str, Any] = {f"u{number}": 1 for number in range(count)}
        error = refusal_of(send, orjson.dumps({**SEND, **unknown}))
        assert error is not None
        assert error.errors == {f"u{number}": ["Unknown field."] for number in range(named)}
        if count > 50:
            assert str(count) in error.detail


def test_of_many_wrong_targets_a_hundred_are_named() -> None:
    error = refusal_of(broadcast, TARGETS % many(b"1", 1000))
    assert error is not None
    assert error.errors is not None
    assert list(error.errors) == [f"target_sessions.{number}" for number in range(100)]


@pytest.mark.parametrize(
    "told",
    [
        rb'"18446744073709551616"',
        rb'"\"18446744073709551616"',
        rb'"\\", "b": "18446744073709551616"',
        rb'"\\\"", "b": "\\\\\"18446744073709551616\\"',
        rb'"", "18446744073709551616": "18446744073709551616,"',
        b"0.18446744073709551616, " + rb'"b": 1e00000000000000000000001',
        b"1E+00000000000000000000001, " + rb'"b": 18446744073709551616.0',
        b"1E-00000000000000000000001, " + rb'"b": 18446744073709551616e0',
        b"-18446744073709551616.5",
    ],
)
def test_digits_that_are_no_long_integer_are_taken_and_one_behind_them_is_not(told: bytes) -> None:
    parse_object(b'{"a": %b}' % told)
    for long_one in (b"18446744073709551616", b"-9223372036854775809", b"1" * 300):
        with pytest.raises(ValidationFailed, match="64 bits"):
            parse_object(b'{"a": %b, "n": [%b]}' % (told, long_one))
        with pytest.raises(ValidationFailed, match="64 bits"):
            parse_object(b'{"n":%b, "a": %b}' % (long_one, told))


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_of_garbage_is_left_as_it_was(was_on: bool) -> None:
    (gc.enable if was_on else gc.disable)()
    try:
        for text in (b"{}", b"{", b"[]"):
            with contextlib.suppress(OrchestratorError):
                parse_object(text)
            assert gc.isenabled() is was_on
    finally:
        gc.enable()
