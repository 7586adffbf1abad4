"""Frames are taken apart into the events that they hold."""

import pytest

from benchmarks.rig.events import events_of
from benchmarks.rig.records import Mark
from tests.benchmarks.recorded import SESSION, TASK, TENANT, delta, frame, mark


def test_a_plain_frame_is_one_event() -> None:
    (event,) = events_of(delta(3, 1))
    assert (event.offset, event.type, event.task) == (3, "agent_delta", TASK)
    assert event.mark == Mark(TENANT, SESSION, TASK, 1, 1)


def test_a_joined_frame_is_told_apart_into_the_events_it_was_made_of() -> None:
    text = "".join(f"{mark(number)} word " for number in (1, 2, 3))
    joined = frame(5, "agent_delta", {"text": text}, from_offset=3)
    singles = [
        frame(number + 2, "agent_delta", {"text": f"{mark(number)} word "}) for number in (1, 2, 3)
    ]
    apart = [event for single in singles for event in events_of(single)]
    assert [event.identity for event in events_of(joined)] == [event.identity for event in apart]
    assert [event.offset for event in events_of(joined)] == [3, 4, 5]


def test_a_joined_frame_that_holds_fewer_deltas_than_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match="1 deltas in a frame from 3 to 5"):
        events_of(frame(5, "agent_delta", {"text": mark(1)}, from_offset=3))


def test_events_are_the_same_whatever_the_order_of_their_members() -> None:
    (one,) = events_of(frame(1, "agent_event", {"name": "a", "x": 1}))
    (other,) = events_of(frame(1, "agent_event", {"x": 1, "name": "a"}))
    (third,) = events_of(frame(1, "agent_event", {"x": 2, "name": "a"}))
    assert one.identity == other.identity != third.identity


@pytest.mark.parametrize(
    ("type_", "data", "status"),
    [
        ("agent_response", {"response": ""}, "completed"),
        ("error", {"status": "timeout"}, "timeout"),
        ("task_update", {"status": "cancelled"}, "cancelled"),
        ("task_update", {"status": "cancelling"}, None),
        ("agent_delta", {"text": "cancelled"}, None),
    ],
)
def test_an_event_says_with_what_it_ends_its_task(
    type_: str, data: dict[str, str], status: str | None
) -> None:
    (event,) = events_of(frame(1, type_, data))
    assert event.status == status
