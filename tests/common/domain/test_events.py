"""Entries become frames byte for byte, and deltas may be joined without losing a letter."""

import itertools

import orjson
import pytest

from common.domain.events import (
    MAX_JOINED,
    RESERVED_TYPES,
    Compactor,
    Event,
    Frame,
    FrameType,
    address_of,
    encode_entry,
    encode_frame,
    encode_reply,
)
from common.domain.ids import SessionId, SessionKey, TaskId, TenantId

ADDRESS = address_of(SessionKey(TenantId("acme"), SessionId("s-1")))
TIME = "2026-01-31T10:00:00.123Z"


def event(offset: int, type_: str, data: object, task: str | None = "t1") -> Event:
    return Event(
        offset, encode_entry(type_, orjson.dumps(data), TIME, TaskId(task) if task else None)
    )


def deltas(*texts: str, task: str = "t1", start: int = 1) -> list[Event]:
    return [
        event(offset, "agent_delta", {"text": text}, task)
        for offset, text in enumerate(texts, start)
    ]


def compact(*pages: list[Event]) -> list[Frame]:
    compactor = Compactor(ADDRESS)
    frames = [frame for page in pages for frame in compactor.feed(page)]
    return frames + list(compactor.flush())


def test_a_frame_is_its_entry_with_address_and_offset() -> None:
    entry = encode_entry("agent_delta", b'{"text":"Hel"}', TIME, TaskId("t1"), b'{"k":1}')
    assert orjson.loads(Event(7, entry).frame(ADDRESS)) == {
        "type": "agent_delta",
        "data": {"text": "Hel"},
        "timestamp": TIME,
        "task_id": "t1",
        "metadata": {"k": 1},
        "tenant_id": "acme",
        "session_id": "s-1",
        "offset": 7,
    }


def test_data_is_passed_on_byte_for_byte() -> None:
    data = b'{"n": 12345678901234567890,"e":[], "x":1.10}'
    assert data in Event(1, encode_entry("agent_event", data, TIME)).frame(ADDRESS)


def test_a_frame_is_made_once_for_all_connections() -> None:
    one = event(1, "agent_event", {})
    assert one.frame(ADDRESS) is one.frame(ADDRESS)


def test_what_is_not_kept_has_no_offset() -> None:
    frame = orjson.loads(encode_frame(encode_entry("typing_indicator", b"{}", TIME), ADDRESS))
    assert "offset" not in frame
    assert frame["session_id"] == "s-1"


@pytest.mark.parametrize("id_", [None, 'we"ird\n', "0123456789abcdef"])
def test_a_reply_repeats_the_id_of_what_it_answers(id_: str | None) -> None:
    frame = orjson.loads(encode_reply(FrameType.PONG, b"{}", TIME, ADDRESS, id_))
    assert frame.get("id") == id_
    assert (frame["type"], frame["data"]) == ("pong", {})


def test_a_push_may_not_pretend_to_be_one_of_our_own() -> None:
    assert {"agent_delta", "task_update", "connection_ack", "error", "ack"} <= RESERVED_TYPES
    assert not {"agent_response", "broadcast"} & RESERVED_TYPES


def test_events_become_frames_one_by_one() -> None:
    frames = [orjson.loads(event.frame(ADDRESS)) for event in deltas("a", "b")]
    assert [frame["offset"] for frame in frames] == [1, 2]
    assert frames[1]["data"] == {"text": "b"}


def test_consecutive_deltas_are_joined_across_pages() -> None:
    (frame,) = compact(deltas("Hel", "lo"), deltas(" wörld", start=3))
    told = orjson.loads(frame.payload)
    assert (told["from_offset"], told["offset"], frame.offset) == (1, 3, 3)
    assert told["data"] == {"text": "Hello wörld"}
    assert (told["type"], told["task_id"]) == ("agent_delta", "t1")


def test_a_single_delta_stays_as_it_is() -> None:
    (one,) = deltas("Hel")
    assert compact([one]) == [Frame(1, one.frame(ADDRESS))]


@pytest.mark.parametrize(
    "between",
    [
        event(3, "agent_delta", {"text": "x", "role": "tool"}),
        event(3, "agent_delta", {"text": "x"}, task="t2"),
        event(3, "task_update", {"status": "running", "attempt": 2, "reset": True}),
        event(3, "agent_event", {"name": "tool"}),
        event(3, "note", {"text": "agent_delta"}, task=None),
    ],
)
def test_whatever_stands_between_keeps_deltas_apart(between: Event) -> None:
    frames = compact([*deltas("a", "b"), between, *deltas("c", "d", start=4)])
    told = [orjson.loads(frame.payload) for frame in frames]
    assert [(each.get("from_offset"), each["offset"]) for each in told] == [
        *((1, 2), (None, 3), (4, 5))
    ]


def test_joined_frames_stay_within_bounds() -> None:
    half = "x" * (MAX_JOINED // 2 + 1)
    frames = compact(deltas(half, half, half, "end"))
    assert [frame.offset for frame in frames] == [2, 4]
    assert all(len(frame.payload) < 2 * MAX_JOINED for frame in frames)


def test_joining_loses_and_repeats_nothing_wherever_the_pages_are_cut() -> None:
    kinds = [("t1", True), ("t1", False), ("t2", True)]
    for choice in itertools.product(kinds, repeat=4):
        events = [
            event(offset, "agent_delta", {"text": str(offset)} | ({} if plain else {"x": 1}), task)
            for offset, (task, plain) in enumerate(choice, start=1)
        ]
        for cut in range(5):
            frames = compact(events[:cut], events[cut:])
            covered: list[int] = []
            text = ""
            for frame in frames:
                told = orjson.loads(frame.payload)
                covered += range(told.get("from_offset", told["offset"]), told["offset"] + 1)
                text += told["data"]["text"]
            assert covered == [1, 2, 3, 4]
            assert text == "1234"
