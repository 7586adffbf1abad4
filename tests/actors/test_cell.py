"""An actor's life: hooks, failures and stops, with nothing lost that could be kept."""

import asyncio
from typing import Any

import pytest
from pykka import ActorDeadError
from structlog.testing import capture_logs

from actors import cell as cell_module
from actors.cell import Cell
from actors.loop_actor import LoopActor, LoopRef, dead_letters
from tests.actors.examples import Diary, Echo, Lived, SlowDiary


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class Keeper:
    """A parent that restarts at once, unless it gives up."""

    def __init__(self, *, restarts: int = 1000) -> None:
        self.failed: list[BaseException] = []
        self.ended = 0
        self.left = restarts

    def child_failed(self, cell: Cell, error: BaseException) -> None:
        self.failed.append(error)
        if self.left:
            self.left -= 1
            cell.restart(0.0)
        else:
            cell.bury()

    def child_ended(self, _cell: Cell) -> None:
        self.ended += 1


class Waiting(Keeper):
    """A parent that leaves the decision to the test."""

    def child_failed(self, _cell: Cell, error: BaseException) -> None:
        self.failed.append(error)


def start_kept(keeper: Keeper, actor_class: type[LoopActor], *args: Any) -> LoopRef:
    cell = Cell(actor_class, "keeper/kept", args, {}, permanent=True)
    cell.parent = keeper
    return cell.launch()


# --- starting


async def test_messages_wait_for_the_start() -> None:
    book, gate = list[Any](), asyncio.Event()
    ref = Lived.start(book, {"start": gate})
    ref.tell("early")
    await settled()
    assert (book, ref.state, ref.is_alive(), ref.mailbox) == (["start"], "starting", True, 1)
    gate.set()
    await ref.ask("late")
    assert book == ["start", "early", "late"]
    assert ref.state == "running"


@pytest.mark.parametrize("slow", [False, True])
async def test_a_start_that_raises_is_a_failure(slow: bool) -> None:
    class Stillborn(LoopActor):
        def on_start(self) -> Any:
            return self.later() if slow else self.now()

        async def later(self) -> None:
            self.now()

        def now(self) -> None:
            raise OSError("no ground")

    with capture_logs() as lines:
        ref = Stillborn.start()
        with pytest.raises(ActorDeadError):
            await ref.ask("?")
    assert [(line["phase"], line["outcome"]) for line in lines] == [("on_start", "ended")]
    assert ref.state == "failed"


# --- failing


async def test_a_failed_actor_nobody_restarts_is_gone_after_its_hook() -> None:
    book, gate = list[Any](), asyncio.Event()
    ref = Lived.start(book, {"failure": gate})
    with capture_logs():
        ref.tell(ValueError())
        asked = ref.ask("never handled")
        await settled()
        assert (ref.state, ref.is_alive(), asked.done()) == ("failed", False, False)
        gate.set()
        with pytest.raises(ActorDeadError):
            await asked
    assert [type(entry) for entry in book] == [str, ValueError, str]
    assert book[-1] == "failure"


async def test_a_restarted_actor_keeps_its_ref_and_all_that_waits_but_the_failed_message() -> None:
    book: list[Any] = []
    keeper = Keeper()
    with capture_logs() as lines:
        ref = start_kept(keeper, Diary, book)
        with pytest.raises(ValueError, match="as told"):
            await asyncio.gather(ref.ask("fail"), *[ref.ask(n) for n in range(5)])
        assert await ref.ask("read") == ["fail", 0, 1, 2, 3, 4, "read"]
    assert [type(error) for error in keeper.failed] == [ValueError]
    assert (ref.state, ref.restarts) == ("running", 1)
    assert [line["event"] for line in lines] == [
        "actor.started",
        "actor.failed",
        "actor.restarted",
    ]
    assert lines[2]["mailbox"] == 5


@pytest.mark.parametrize("actor_class", [Diary, SlowDiary])
async def test_however_often_it_fails_nothing_is_lost_twice_handled_or_out_of_order(
    actor_class: type[LoopActor],
) -> None:
    book: list[Any] = []
    sent = [n if n % 7 else "fail" for n in range(1, 300)]
    with capture_logs():
        ref = start_kept(Keeper(), actor_class, book)
        for number, message in enumerate(sent):
            ref.tell(message)
            if number % 50 == 0:
                await asyncio.sleep(0)
        assert await ref.ask("read", timeout=None) == [*sent, "read"]
    assert ref.restarts == sent.count("fail")


async def test_while_suspended_messages_wait_and_the_old_instance_is_cleaned_up_first() -> None:
    book, gate = list[Any](), asyncio.Event()
    keeper = Keeper()
    with capture_logs():
        ref = start_kept(keeper, Lived, book, {"failure": gate})
        ref.tell(ValueError())
        await settled()
        assert (ref.state, ref.is_alive(), keeper.failed) == ("restarting", True, [])
        asked = ref.ask("waits")
        gate.set()
        await asked
    assert book[2:] == ["failure", "start", "waits"]


async def test_a_clean_up_that_raises_or_hangs_is_told_and_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Untidy(Diary):
        def on_failure(self, *_error: Any) -> Any:
            if "hang" in self.book:
                return asyncio.Event().wait()
            raise OSError("untidy")

    monkeypatch.setattr(cell_module, "FAILURE_HOOK_SECONDS", 0.01)
    with capture_logs() as lines:
        ref = start_kept(Keeper(), Untidy, [])
        ref.tell("fail")
        ref.tell("hang")
        ref.tell("fail")
        await ref.ask("read")
    failures = [line for line in lines if line["event"] == "actor.failed"]
    assert [(line["error_type"], line["outcome"]) for line in failures] == [
        ("ValueError", "restart"),
        ("OSError", "ignored"),
        ("ValueError", "restart"),
        ("CancelledError", "ignored"),
    ]


async def test_a_constructor_that_raises_at_a_restart_is_a_failure_of_its_own() -> None:
    attempts: list[int] = []

    class Unlucky(Echo):
        def __init__(self) -> None:
            super().__init__()
            attempts.append(1)
            if len(attempts) == 2:
                raise OSError("not now")

        def on_receive(self, message: Any) -> Any:
            return 1 // message

    with capture_logs() as lines:
        keeper = Keeper()
        ref = start_kept(keeper, Unlucky)
        ref.tell(0)
        assert await ref.ask(1) == 1
    assert [line["phase"] for line in lines if "phase" in line] == ["on_receive", "__init__"]
    assert [type(error) for error in keeper.failed] == [ZeroDivisionError, OSError]
    assert ref.restarts == 2


async def test_one_that_is_given_up_refuses_what_waits() -> None:
    keeper = Keeper(restarts=0)
    with capture_logs():
        ref = start_kept(keeper, Diary, [])
        ref.tell("fail")
        with pytest.raises(ActorDeadError):
            await ref.ask("too late")
    assert (ref.state, keeper.ended) == ("failed", 1)


async def test_a_restart_or_burial_that_nobody_waits_for_does_nothing() -> None:
    ref = start_kept(Keeper(), Echo)
    assert await ref.ask(1) == 1
    ref._cell.restart(0.0)
    ref._cell.bury()
    assert await ref.ask(2) == 2
    assert ref.restarts == 0


async def test_control_messages_get_into_a_full_mailbox_and_nowhere_when_it_is_gone() -> None:
    class Full(Diary):
        mailbox_size = 0

    book: list[Any] = []
    ref = Full.start(book)
    await settled()
    assert ref._cell.deliver_control("first")
    assert ref._cell.deliver_control("second")
    await ref.stop()
    assert book == ["first", "second"]
    assert not ref._cell.deliver_control("third")


# --- stopping


@pytest.mark.parametrize("actor_class", [Diary, SlowDiary])
async def test_a_graceful_stop_handles_what_waited_before(actor_class: type[LoopActor]) -> None:
    book: list[Any] = []
    ref = actor_class.start(book)
    for n in range(500):
        ref.tell(n)
    stopped = ref.stop(timeout=None)
    with pytest.raises(ActorDeadError):
        ref.ask("too late")
    assert await stopped is True
    assert book == [*range(500)]
    assert ref.state == "stopped"


async def test_a_stop_at_once_refuses_asks_and_counts_tells() -> None:
    class Abrupt(Lived):
        pass

    book: list[Any] = []
    ref = Abrupt.start(book)
    with capture_logs() as lines:
        ref.tell("lost")
        ref.tell("lost too")
        asked = ref.ask("refused")
        await ref.stop(drop=True)
        with pytest.raises(ActorDeadError):
            await asked
    assert book == ["start", "stop"]
    assert dead_letters.by_class["Abrupt"] == 2
    assert [(line["event"], line["count"]) for line in lines] == [("dead_letters.counted", 2)]


async def test_an_actor_can_stop_itself_after_what_waits() -> None:
    for actor_class in (Diary, SlowDiary):
        book: list[Any] = []
        ref = actor_class.start(book)
        ref.tell("stop")
        ref.tell("still handled")
        await settled()
        assert await ref.stop() in {True, False}
        assert book == ["stop", "still handled"]


async def test_one_that_keeps_itself_going_by_telling_itself_ends_without_an_error() -> None:
    class Poller(LoopActor):
        polls = 0

        def on_receive(self, _message: Any) -> None:
            Poller.polls += 1
            self.actor_ref.tell("again")

    with capture_logs() as lines:
        ref = Poller.start()
        ref.tell("go")
        await settled()
        assert await ref.stop() is True
    assert Poller.polls > 2
    assert ref.state == "stopped"
    assert [line["event"] for line in lines] == ["dead_letters.counted"]


async def test_a_handler_that_takes_longer_than_the_stop_allows_is_cancelled() -> None:
    book: list[Any] = []
    with capture_logs() as lines:
        ref = SlowDiary.start(book)
        asked, waiting = ref.ask("wait"), ref.ask("behind it")
        await settled()
        assert await ref.stop(timeout=0.01) is True
        for future in (asked, waiting):
            with pytest.raises(ActorDeadError):
                await future
    assert (book, ref.state) == (["waits"], "stopped")
    assert lines == []


@pytest.mark.parametrize("timeouts", [(0.01, 60.0), (60.0, 0.01), (None, 0.01), (0.01, None)])
async def test_of_several_stops_the_first_deadline_counts(
    timeouts: tuple[float | None, float | None],
) -> None:
    ref = SlowDiary.start([])
    ref.tell("wait")
    await settled()
    assert await asyncio.gather(*[ref.stop(timeout=t) for t in timeouts]) == [True, True]


async def test_a_stop_hook_that_hangs_is_cancelled_and_told() -> None:
    book: list[Any] = []
    with capture_logs() as lines:
        ref = Lived.start(book, {"stop": asyncio.Event()})
        stopped = ref.stop(timeout=None)
        await settled()
        assert (book, stopped.done()) == (["start", "stop"], False)
        assert await ref.stop(timeout=0.01) is True
    assert [(line["phase"], line["outcome"]) for line in lines] == [("on_stop", "ignored")]


async def test_a_start_that_hangs_is_cancelled_by_a_stop() -> None:
    class Stuck(LoopActor):
        async def on_start(self) -> None:
            await asyncio.Event().wait()

    with capture_logs() as lines:
        ref = Stuck.start()
        asked = ref.ask("waits")
        assert await ref.stop(timeout=0.01) is True
        with pytest.raises(ActorDeadError):
            await asked
    assert [line["phase"] for line in lines] == ["on_start"]


async def test_an_overtime_that_finds_no_task_only_clears_the_mailbox() -> None:
    class Endless(Diary):
        turn_budget = 1

    book: list[Any] = []
    ref = Endless.start(book)
    for n in range(900):
        ref.tell(n)
    with capture_logs():
        assert await ref.stop(timeout=0.0) is True
    assert len(book) < 900


async def test_all_who_wait_for_a_stop_hear_of_it_even_if_one_of_them_leaves() -> None:
    gate = asyncio.Event()
    ref = SlowDiary.start([], gate)
    ref.tell("wait")
    await settled()
    first, second, third = ref.stop(timeout=None), ref.stop(), ref.stop(timeout=None)
    first.cancel()
    gate.set()
    assert await asyncio.gather(*[second, third]) == [True, True]


async def test_a_failure_while_stopping_is_the_end() -> None:
    keeper = Keeper()
    with capture_logs() as lines:
        ref = start_kept(keeper, Diary, [])
        ref.tell("fail")
        asked = ref.ask("behind it")
        await ref.stop()
        with pytest.raises(ActorDeadError):
            await asked
    assert (ref.state, ref.restarts, len(keeper.failed)) == ("failed", 0, 1)
    assert lines[1]["outcome"] == "ended"


async def test_one_that_waits_for_its_restart_stops_at_once() -> None:
    keeper = Waiting()
    with capture_logs() as lines:
        ref = start_kept(keeper, Diary, [])
        ref.tell("fail")
        ref.tell("waits")
        await settled()
        assert ref.state == "restarting"
        assert await ref.stop() is True
        ref._cell.restart(0.0)
    assert ref.state == "stopped"
    stops = [line for line in lines if line["event"] == "actor.stopped"]
    assert [line["dropped"] for line in stops] == [1]


async def test_one_that_is_stopped_while_it_cleans_up_is_not_restarted() -> None:
    gate, keeper = asyncio.Event(), Keeper()
    with capture_logs():
        ref = start_kept(keeper, Lived, [], {"failure": gate})
        ref.tell(ValueError())
        await settled()
        stopped = ref.stop()
        gate.set()
        assert await stopped is True
    assert (ref.state, ref.restarts) == ("stopped", 0)
