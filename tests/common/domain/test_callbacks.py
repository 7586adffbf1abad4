"""An entry of the callback stream is read once: it is usable, or set aside with a reason."""

from typing import Any

import orjson
import pytest

from common.domain.callbacks import (
    MAX_DEPTH,
    MAX_SEQ,
    OVERHEAD,
    Callback,
    CallbackType,
    DeadLetter,
    DeadReason,
    Position,
    depth_of,
    names_another,
    read_callback,
)
from common.domain.ids import SessionId, SessionKey, TaskId, TenantId

SESSION = SessionKey(TenantId("acme"), SessionId("s"))
PLACE = Position(session=SESSION, task_id=TaskId("t"), attempt=1, seq=2)
GOOD_DATA: dict[CallbackType, dict[str, Any]] = {
    CallbackType.STARTED: {},
    CallbackType.DELTA: {"text": "Hel"},
    CallbackType.EVENT: {"name": "tool"},
    CallbackType.PROGRESS: {"progress": 40, "message": "reading"},
    CallbackType.TYPING: {},
    CallbackType.COMPLETED: {"response": "Hello", "sources": []},
    CallbackType.FAILED: {"error": {"type": "x", "message": "y"}},
    CallbackType.CANCELLED: {},
}


def entry(**changes: bytes | None) -> dict[bytes, bytes]:
    fields: dict[str, bytes | None] = {
        "task_id": b"t",
        "tenant_id": b"acme",
        "session_id": b"s",
        "attempt": b"1",
        "seq": b"2",
        "type": b"delta",
        "data": b'{"text":"Hel"}',
    }
    return {name.encode(): value for name, value in (fields | changes).items() if value is not None}


def read(max_bytes: int = 1000, **changes: bytes | None) -> Callback | DeadLetter:
    return read_callback(entry(**changes), max_bytes, 3)


def dead(**changes: Any) -> DeadLetter:
    found = read(**changes)
    assert isinstance(found, DeadLetter), found
    return found


@pytest.mark.parametrize("type_", CallbackType)
def test_what_the_contract_names_can_be_read(type_: CallbackType) -> None:
    data = orjson.dumps(GOOD_DATA[type_])
    assert read(type=type_.encode(), data=data) == Callback(
        position=PLACE, type=type_, data=data, body=GOOD_DATA[type_]
    )


def test_data_is_passed_on_as_it_came_but_on_one_line() -> None:
    found = read(data=b' {"text": "a\\nb",\r\n "n": 12345678901234567890, "e": []}\n')
    assert isinstance(found, Callback)
    assert found.data == b'{"text": "a\\nb",   "n": 12345678901234567890, "e": []}'


@pytest.mark.parametrize("name", ["task_id", "attempt", "seq"])
def test_without_its_place_an_entry_counts_for_nothing(name: str) -> None:
    for value in (None, b"", b"\xff", b"a b"):
        found = dead(**{name: value})
        assert (found.reason, found.position) == (DeadReason.UNREADABLE, None)


@pytest.mark.parametrize("name", ["tenant_id", "session_id"])
def test_without_its_session_an_entry_is_unreadable_but_counts_as_received(name: str) -> None:
    for value in (None, b"", b"\xff", b"a:b"):
        found = dead(**{name: value})
        assert found.reason is DeadReason.UNREADABLE
        assert found.position == Position(session=None, task_id=TaskId("t"), attempt=1, seq=2)


@pytest.mark.parametrize(
    "number", [b"0", b"-1", b"+1", b" 1", b"1.0", b"1e3", b"0x1", b"\xd9\xa1", b"9" * 17, b"one"]
)
def test_a_seq_is_a_plain_number_from_one_on(number: bytes) -> None:
    assert dead(seq=number).position is None


def test_a_seq_may_be_as_large_as_any_json_number() -> None:
    largest = read(seq=str(MAX_SEQ).encode())
    assert largest.position is not None
    assert largest.position.seq == MAX_SEQ
    assert dead(seq=str(MAX_SEQ + 1).encode()).position is None


def test_an_attempt_above_the_most_allowed_counts_for_nothing() -> None:
    assert isinstance(read(attempt=b"3"), Callback)
    found = dead(attempt=b"4", type=b"completed", data=b"{}")
    assert (found.reason, found.position, found.ends_task) == (DeadReason.UNREADABLE, None, False)


def test_an_unknown_type_is_told_from_a_missing_one() -> None:
    assert dead(type=b"finished").reason is DeadReason.UNKNOWN_TYPE
    assert dead(type=b"\xff").reason is DeadReason.UNKNOWN_TYPE
    assert dead(type=None).reason is DeadReason.UNREADABLE
    assert dead(type=b"finished").position == PLACE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"text":"\xff"}',
        b'{"text":"\\ud800"}',
        b'{"text":NaN}',
        b'{"text":"a\nb"}',
        b'{"text":"x","deep":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b"[" * 5000,
    ],
)
def test_data_that_is_no_sound_json_object_is_unreadable(data: bytes) -> None:
    found = dead(data=data, max_bytes=10_000)
    assert (found.reason, found.position) == (DeadReason.UNREADABLE, PLACE)


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("delta", {}),
        ("delta", {"text": 1}),
        ("event", {"text": "x"}),
        ("event", {"name": None}),
        ("progress", {}),
        ("progress", {"progress": -1}),
        ("progress", {"progress": 100.1}),
        ("progress", {"progress": True}),
        ("progress", {"progress": "50"}),
        ("progress", {"progress": 50, "message": 1}),
        ("completed", {"response": {}}),
        ("failed", {}),
        ("failed", {"error": "broken"}),
    ],
)
def test_data_without_what_its_type_needs_is_unreadable(type_: str, data: object) -> None:
    found = dead(type=type_.encode(), data=orjson.dumps(data))
    assert found.reason is DeadReason.UNREADABLE
    assert found.ends_task == (type_ in ("completed", "failed"))


def test_completed_may_leave_its_response_out() -> None:
    assert isinstance(read(type=b"completed", data=b"{}"), Callback)


def test_too_much_is_too_large_and_still_ends_its_task() -> None:
    data = orjson.dumps({"text": "x" * 89})
    assert len(data) == 100
    assert isinstance(read(data=data, max_bytes=100), Callback)
    assert dead(data=data, max_bytes=99).reason is DeadReason.TOO_LARGE
    assert dead(extra=b"x" * (OVERHEAD + 1000)).reason is DeadReason.TOO_LARGE
    end = dead(type=b"completed", data=data, max_bytes=99)
    assert (end.position, end.ends_task) == (PLACE, True)


def test_a_json_value_nests_as_deep_as_its_deepest_part() -> None:
    values: list[object] = [1, {}, [], {"a": []}, [[], [{}]], {"a": {"b": 1}}]
    assert [depth_of(each) for each in values] == [0, 1, 1, 2, 3, 2]


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({}, False),
        ({"tenant_id": None}, False),
        ({"session_id": b"no id!"}, False),
        ({"session_id": b"\xff"}, False),
        ({"tenant_id": b"other"}, True),
        ({"session_id": b"other"}, True),
        ({"tenant_id": b"other", "session_id": None}, True),
        ({"tenant_id": None, "session_id": b"other"}, True),
    ],
)
def test_an_entry_names_another_session_only_if_it_does_so_legibly(
    changes: dict[str, bytes | None], differs: bool
) -> None:
    assert names_another(entry(**changes), SESSION) is differs
