"""Turns are fair, batches match by position, and every error finds the right ear."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.loop_actor import ActorDeadError, LoopActor, LoopRef, MailboxFull
from common.domain.errors import RedisUnavailable, TaskNotFound
from tests.actors.examples import Diary, Echo, Job, SlowDiary


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


class Batches(LoopActor):
    """Answers each message with the size of its batch; does what a message says."""

    batch_size = 10

    def __init__(self, book: list[list[Any]]) -> None:
        super().__init__()
        self.book = book

    def on_batch(self, messages: list[Any]) -> Any:
        self.book.append(messages)
        match messages[0]:
            case "nothing":
                return None
            case "too few":
                return [1]
            case "no list":
                return 5
            case BaseException() as error:
                raise error
        return [
            TaskNotFound()
            if message == "unknown"
            else message
            if "=" in str(message)
            else len(messages)
            for message in messages
        ]


class AsyncBatches(Batches):
    async def on_batch(self, messages: list[Any]) -> Any:
        await asyncio.sleep(0)
        return super().on_batch(messages)


BOTH = pytest.mark.parametrize("batches", [Batches, AsyncBatches])


async def test_a_flood_does_not_starve_the_loop() -> None:
    class Flooded(Echo):
        mailbox_size = 10_000
        turn_budget = 50

    ref, ticks = Flooded.start(), 0
    for n in range(9_999):
        ref.tell(n)
    done = ref.ask("done", timeout=None)
    while not done.done():
        ticks += 1
        await asyncio.sleep(0)
    assert ticks >= 10_000 / 50


async def test_an_async_handler_that_never_waits_does_not_starve_the_loop_either() -> None:
    class Busy(LoopActor):
        async def on_receive(self, message: Any) -> Any:
            return message

    ref, ticks = Busy.start(), 0
    for n in range(500):
        ref.tell(n)
    done = ref.ask("done", timeout=None)
    while not done.done():
        ticks += 1
        await asyncio.sleep(0)
    assert ticks >= 500


async def test_a_sync_handler_never_makes_a_task() -> None:
    made: list[Any] = []

    class Looking(LoopActor):
        def on_receive(self, _message: Any) -> None:
            made.append(asyncio.current_task())

    ref = Looking.start()
    ref.tell("look")
    await ref.ask("look")
    assert made == [None, None]


async def test_what_a_sender_binds_to_its_context_does_not_stick_to_the_actor() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")

    class Seeing(LoopActor):
        def on_receive(self, _message: Any) -> str:
            return request.get()

    ref = Seeing.start()
    request.set("mine")
    assert await ref.ask("which?") == "none"


@BOTH
async def test_a_batch_is_all_that_waits_up_to_its_size(batches: type[Batches]) -> None:
    book: list[list[Any]] = []
    ref = batches.start(book)
    replies = await asyncio.gather(*[ref.ask(n) for n in range(25)])
    assert book == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]
    assert replies == [10] * 20 + [5] * 5


@BOTH
async def test_one_refused_message_does_not_fail_the_others(batches: type[Batches]) -> None:
    ref = batches.start([])
    with capture_logs() as lines:
        asks = [ref.ask(message) for message in ("a=1", "unknown", "b=2")]
        replies = await asyncio.gather(*asks, return_exceptions=True)
    assert replies[::2] == ["a=1", "b=2"]
    assert isinstance(replies[1], TaskNotFound)
    assert lines == []


@BOTH
async def test_a_batch_may_answer_nothing(batches: type[Batches]) -> None:
    ref = batches.start([])
    assert await asyncio.gather(*[ref.ask("nothing"), ref.ask(2)]) == [None, None]


@BOTH
@pytest.mark.parametrize("wrong", ["too few", "no list"])
async def test_replies_that_do_not_match_are_a_failure(batches: type[Batches], wrong: str) -> None:
    ref = batches.start([])
    with capture_logs() as lines:
        asked = await asyncio.gather(ref.ask(wrong), ref.ask(2), return_exceptions=True)
    assert [type(error) for error in asked] == [TypeError, TypeError]
    assert [line["phase"] for line in lines] == ["on_batch"]


@BOTH
async def test_a_batch_that_raises_reaches_all_its_askers_and_is_one_failure(
    batches: type[Batches],
) -> None:
    ref = batches.start([])
    with capture_logs() as lines:
        asks = [ref.ask(ValueError("broken")), ref.ask(2)]
        ref.tell(3)
        replies = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(reply) for reply in replies] == [ValueError, ValueError]
    assert [(line["event"], line["messages"]) for line in lines] == [("actor.failed", 3)]


@BOTH
async def test_a_contract_error_for_a_batch_of_asks_is_an_answer(batches: type[Batches]) -> None:
    ref = batches.start([])
    with capture_logs() as lines:
        asks = [ref.ask(RedisUnavailable()), ref.ask(2)]
        replies = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(reply) for reply in replies] == [RedisUnavailable] * 2
        assert await ref.ask("a=1") == "a=1"
    assert lines == []


async def test_a_refusal_of_a_told_message_is_a_failure_and_the_others_are_answered() -> None:
    ref = Batches.start([])
    with capture_logs() as lines:
        ref.tell("unknown")
        assert await ref.ask("a=1") == "a=1"
        await settled()
    assert [(line["event"], line["messages"]) for line in lines] == [("actor.failed", 1)]


@BOTH
async def test_tells_and_asks_of_one_sender_are_handled_in_order(batches: type[Batches]) -> None:
    for actor_class in (batches, Diary, SlowDiary):
        book: list[Any] = []
        ref = actor_class.start(book)
        for number in range(0, 30, 3):
            ref.tell(number)
            ref.ask(number + 1)
            await asyncio.sleep(0)
            ref.tell(number + 2)
        await ref.stop()
        handled = [m for batch in book for m in batch] if actor_class is batches else book
        assert handled == list(range(30))


class Unforeseen(BaseException):
    """No `except Exception` catches it, and it is no interrupt."""


@pytest.mark.parametrize("where", ["on_start", "on_receive", "task"])
async def test_whatever_a_handler_raises_the_actor_has_failed_and_hangs_nowhere(where: str) -> None:
    with capture_logs() as lines:
        ref = Interrupted.start(Unforeseen, where)
        with pytest.raises(ActorDeadError):
            await ref.ask("go")
        await settled()
    assert not ref.is_alive()
    assert [line["error_type"] for line in lines] == ["Unforeseen"]


async def test_a_contained_failure_is_recorded_and_the_actor_goes_on() -> None:
    class Careful(LoopActor):
        def on_receive(self, message: Any) -> str:
            self.contain(ValueError("not this one"), message)
            return "next, please"

    with capture_logs() as lines:
        ref = Careful.start()
        assert await ref.ask(Job()) == "next, please"
    (line,) = lines
    assert (line["event"], line["outcome"], line["task_id"]) == ("actor.failed", "contained", "t-1")


async def test_what_must_not_be_lost_gets_into_a_full_mailbox() -> None:
    class Small(SlowDiary):
        mailbox_size = 1

    book: list[Any] = []
    ref = Small.start(book)
    ref.tell(1)
    with pytest.raises(MailboxFull):
        ref.tell(2)
    ref.notify(3)
    await ref.stop()
    ref.notify(4)
    assert book == [1, 3]


async def test_a_handler_that_someone_cancels_has_failed_and_its_asker_goes_on() -> None:
    class Cancelled(LoopActor):
        async def on_receive(self, _message: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    class CancelledAtOnce(LoopActor):
        def on_receive(self, _message: Any) -> None:
            raise asyncio.CancelledError

    for actor_class in (Cancelled, CancelledAtOnce):
        with capture_logs() as lines:
            ref = actor_class.start()
            with pytest.raises(ActorDeadError):
                await ref.ask("go")
        assert [line["error_type"] for line in lines] == ["CancelledError"]


class Interrupted(LoopActor):
    def __init__(self, interrupt: type[BaseException], where: str) -> None:
        super().__init__()
        self.interrupt, self.where = interrupt, where

    def on_start(self) -> None:
        if self.where == "on_start":
            raise self.interrupt

    def on_receive(self, _message: Any) -> Any:
        if self.where == "task":
            return self.later()
        raise self.interrupt

    async def later(self) -> None:
        raise self.interrupt


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["on_start", "on_receive", "task"])
def test_an_interrupt_goes_to_the_loop_and_ends_no_other_actor(
    interrupt: type[BaseException], where: str
) -> None:
    started: list[Any] = []

    async def begin() -> None:
        ref = Interrupted.start(interrupt, where)
        started.extend([ref, Echo.start(), ref.ask("go")])

    async def go_on(ref: LoopRef, other: LoopRef, asked: asyncio.Future[Any]) -> None:
        assert await other.ask("still there?") == "still there?"
        with pytest.raises(ActorDeadError):
            await asked
        assert not ref.is_alive()

    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(begin())
        with capture_logs() as lines:
            with pytest.raises(interrupt):
                loop.run_forever()
            assert task.done()
            loop.run_until_complete(go_on(*started))
        assert [line["error_type"] for line in lines] == [interrupt.__name__]
    finally:
        loop.close()
