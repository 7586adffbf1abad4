"""Joining, replaying and going live, in every order in which things may happen."""

import itertools

import pytest

from common.domain.events import Event
from common.domain.resume import (
    BUFFERED_BYTES,
    BUFFERED_EVENTS,
    Joined,
    Phase,
    Published,
    Resume,
    ResumeRequest,
    Step,
    join,
)
from tests.support.world import Log, World, event

EPOCH = "epoch-1"


def resume(start: int, last: int) -> Resume:
    return Resume(Joined(epoch=EPOCH, last=last, start=start, recovered=True))


def published(*offsets: int, epoch: str = EPOCH) -> Published:
    return Published(epoch, tuple(event(epoch, offset) for offset in offsets))


def page(*offsets: int) -> list[Event]:
    return [event(EPOCH, offset) for offset in offsets]


def offsets(step: Step) -> list[int]:
    return [each.offset for each in step.events]


# Where a connection starts (contract, section 4, Resume).


@pytest.mark.parametrize(
    ("epoch", "offset", "oldest", "start", "recovered"),
    [
        (None, None, 1, 9, False),  # neither: live only
        (EPOCH, 4, 1, 4, True),
        (EPOCH, 9, 1, 9, True),
        (EPOCH, 0, 1, 0, True),
        (EPOCH, 4, 5, 4, True),  # all that follows is still kept
        (EPOCH, 4, 6, 9, False),  # trimmed past it
        (EPOCH, 10, 1, 9, False),  # beyond the end
        ("epoch-0", 4, 1, 9, False),
        (None, 0, 1, 0, True),  # all that is kept, and that is everything
        (None, 0, 3, 2, False),  # all that is kept
        (None, 0, 0, 9, False),  # nothing is kept
        (EPOCH, 9, 0, 9, True),
        (EPOCH, 8, 0, 9, False),
    ],
)
def test_a_connection_starts_where_the_contract_says(
    epoch: str | None, offset: int | None, oldest: int, start: int, recovered: bool
) -> None:
    joined = join(ResumeRequest(epoch=epoch, offset=offset), EPOCH, 9, oldest)
    assert (joined.start, joined.recovered, joined.last) == (start, recovered, 9)
    assert joined.replayed == 9 - start


def test_everything_of_an_empty_log_is_nothing() -> None:
    joined = join(ResumeRequest(offset=0), EPOCH, 0, 0)
    assert (joined.start, joined.recovered, joined.replayed) == (0, True, 0)


# The machine, step by step.


def test_with_nothing_to_replay_it_is_live_at_once() -> None:
    machine = resume(3, 3)
    assert machine.begin() == Step()
    assert machine.phase is Phase.LIVE
    assert offsets(machine.published(published(4, 5))) == [4, 5]
    assert machine.position == 5


def test_what_overlaps_is_written_once() -> None:
    machine = resume(3, 3)
    assert offsets(machine.published(published(2, 3, 4))) == [4]
    assert offsets(machine.published(published(3, 4))) == []


def test_what_is_published_during_the_replay_follows_it() -> None:
    machine = resume(0, 3)
    assert machine.begin().read
    assert machine.published(published(4, 5)) == Step()
    step = machine.page(EPOCH, 3, page(1, 2, 3))
    assert offsets(step) == [1, 2, 3, 4, 5]
    assert (step.read, machine.phase) == (False, Phase.LIVE)


def test_a_long_log_is_read_page_by_page() -> None:
    machine = resume(0, 3)
    assert machine.begin().read
    assert machine.page(EPOCH, 3, page(1, 2)) == Step(events=page(1, 2), read=True)
    assert machine.page(EPOCH, 3, page(3)) == Step(events=page(3))


def test_a_gap_is_read_from_the_log() -> None:
    machine = resume(3, 3)
    assert machine.published(published(6)) == Step(read=True)
    step = machine.page(EPOCH, 6, page(4, 5, 6))
    assert (offsets(step), machine.phase) == ([4, 5, 6], Phase.LIVE)


def test_what_does_not_fit_into_the_buffer_is_read_again() -> None:
    machine = resume(0, 1)
    machine.begin()
    many = range(2, BUFFERED_EVENTS + 2)
    machine.published(published(*many))
    machine.published(published(BUFFERED_EVENTS + 2))  # one too many
    step = machine.page(EPOCH, 1, page(1))
    assert offsets(step) == [1, *many]
    assert step.read
    step = machine.page(EPOCH, BUFFERED_EVENTS + 2, page(BUFFERED_EVENTS + 2))
    assert (offsets(step), machine.phase) == ([BUFFERED_EVENTS + 2], Phase.LIVE)


def test_what_is_too_large_for_the_buffer_is_read_again() -> None:
    machine = resume(0, 1)
    machine.begin()
    half = b'{"filling":"%b"}' % (b"x" * (BUFFERED_BYTES // 2))
    machine.published(Published(EPOCH, (Event(2, half),)))
    machine.published(Published(EPOCH, (Event(3, half),)))  # one too many
    step = machine.page(EPOCH, 1, page(1))
    assert (offsets(step), step.read) == ([1, 2], True)
    machine.published(Published(EPOCH, (Event(4, half),)))  # there is room again
    step = machine.page(EPOCH, 3, (Event(3, half),))
    assert (offsets(step), machine.phase) == ([3, 4], Phase.LIVE)


def test_what_was_held_behind_a_hole_waits_for_the_next_page() -> None:
    machine = resume(0, 1)
    machine.begin()
    machine.published(published(4))
    step = machine.page(EPOCH, 1, page(1))
    assert (offsets(step), step.read) == ([1], True)
    assert offsets(machine.page(EPOCH, 4, page(2, 3))) == [2, 3, 4]


def test_a_doubt_has_the_log_read() -> None:
    machine = resume(3, 3)
    assert machine.doubted() == Step(read=True)
    assert machine.page(EPOCH, 3, []) == Step(events=[])
    assert machine.phase is Phase.LIVE


def test_a_doubt_during_a_read_has_the_log_read_once_more() -> None:
    machine = resume(0, 1)
    machine.begin()
    assert machine.doubted() == Step()  # the read under way may be older than what was missed
    assert machine.page(EPOCH, 1, page(1)).read
    assert offsets(machine.page(EPOCH, 2, page(2))) == [2]
    assert machine.phase is Phase.LIVE


@pytest.mark.parametrize("phase", [Phase.LIVE, Phase.REPLAYING])
def test_another_epoch_ends_it(phase: Phase) -> None:
    machine = resume(3 if phase is Phase.LIVE else 0, 3)
    machine.begin()
    assert machine.published(published(1, epoch="epoch-2")) == Step(lost=True)
    assert machine.phase is Phase.LOST


@pytest.mark.parametrize(
    ("epoch", "last", "events"),
    [
        ("epoch-2", 3, []),
        (None, 0, []),  # no log at all
        (EPOCH, 2, []),  # gone back behind what was known
        (EPOCH, 3, page(2, 3)),  # trimmed past us
        (EPOCH, 3, []),  # trimmed altogether
    ],
)
def test_a_read_that_shows_a_hole_ends_it(
    epoch: str | None, last: int, events: list[Event]
) -> None:
    machine = resume(0, 3)
    machine.begin()
    assert machine.page(epoch, last, events) == Step(lost=True)


def test_a_log_that_lost_what_it_had_told_ends_it_instead_of_being_read_for_ever() -> None:
    machine = resume(1, 1)
    assert machine.published(published(4)).read
    assert machine.page(EPOCH, 1, []) == Step(lost=True)


def test_once_lost_nothing_more_is_written() -> None:
    machine = resume(3, 3)
    machine.published(published(1, epoch="epoch-2"))
    assert machine.published(published(4)) == Step()
    assert machine.doubted() == Step()
    assert machine.page(EPOCH, 4, page(4)) == Step()


# Every order.

REQUESTS = [
    ResumeRequest(),
    ResumeRequest(offset=0),
    ResumeRequest(epoch=EPOCH, offset=1),
    ResumeRequest(epoch=EPOCH, offset=3),
]
DEPTH = 5  # tests/properties goes deeper, by chance


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("oldest", [1, 2])
def test_whatever_happens_in_whichever_order_there_is_no_hole_and_none_twice(
    request_: ResumeRequest, oldest: int
) -> None:
    tried = 0
    open_ends: list[tuple[str, ...]] = [()]
    while open_ends:
        moves = open_ends.pop()
        world = World(Log(EPOCH, 3, oldest), request_)
        for move in moves:
            world.do(move)
        if len(moves) < DEPTH:
            open_ends += [(*moves, move) for move in world.possible()]
        else:
            tried += 1
        world.settle()
        world.check_settled()
    assert tried > 4**DEPTH


def test_the_trial_finds_what_a_machine_without_doubts_would_miss() -> None:
    """Else it proves nothing: a missed event, with nothing after it, is a silent hole."""
    moves = ("read", "append_unheard", "rebuild", "hear", "turn_page")
    world = World(Log(EPOCH, 3), ResumeRequest(epoch=EPOCH, offset=1))
    for move in moves[:3]:
        world.do(move)
    world.channel.clear()  # the doubt is not told
    world.do("turn_page")
    world.settle()
    with pytest.raises(AssertionError):
        world.check_settled()


@pytest.mark.parametrize("cut", range(1, 6))
def test_pages_of_any_size_tell_the_same(cut: int) -> None:
    for heard, start in itertools.product(range(4), range(6)):
        world = World(Log(EPOCH, 5), ResumeRequest(epoch=EPOCH, offset=start), page_size=cut)
        for _ in range(heard):
            world.append()
        world.settle()
        world.check_settled()
        assert world.written == 5 + heard
