"""LoopActor keeps pykka's words, and never blocks the loop."""

import asyncio
import gc
import tracemalloc
from typing import Any

import pykka
import pytest
from structlog.testing import capture_logs

from actors.loop_actor import ActorDeadError, LoopActor, LoopRef, MailboxFull, dead_letters
from common.domain.errors import TaskNotFound
from tests.actors.examples import Diary, Echo, SlowDiary


async def settled() -> None:
    """What was scheduled until now, and what that scheduled, has run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_actor_is_pykkas_and_so_is_its_ref() -> None:
    ref = Echo.start(name="supervisor/echo")
    assert isinstance(ref, pykka.ActorRef)
    assert issubclass(Echo, pykka.Actor)
    assert pykka.ActorRegistry.get_all() == []
    assert ref.actor_class is Echo
    assert ref.actor_urn.startswith("urn:uuid:")
    assert len(ref.actor_inbox) == ref.mailbox == 0  # type: ignore[arg-type]
    assert str(ref) == "Echo (supervisor/echo)"
    assert ref.name == "supervisor/echo"
    assert await ref.ask("hello") == "hello"
    assert (ref.state, ref.restarts) == ("running", 0)


async def test_an_actor_knows_its_ref_and_name_while_it_is_made() -> None:
    seen: list[Any] = []

    class Curious(LoopActor):
        def __init__(self) -> None:
            super().__init__()
            seen.extend([self.actor_ref, self.name, str(self), self.actor_urn])

    ref = Curious.start()
    assert seen == [ref, "Curious", "Curious (Curious)", ref.actor_urn]
    assert not ref.actor_stopped.is_set()


async def test_an_actor_is_made_by_start_alone() -> None:
    with pytest.raises(TypeError, match=r"start\(\)"):
        Echo()


async def test_what_a_constructor_raises_reaches_the_one_who_starts() -> None:
    with pytest.raises(TypeError):
        Diary.start()


async def test_told_and_asked_messages_are_handled_in_the_order_sent() -> None:
    ref = Diary.start([])
    for n in range(200):
        ref.tell(n)
    assert await ref.ask("read") == [*range(200), "read"]


async def test_an_async_handler_takes_one_message_at_a_time() -> None:
    gate = asyncio.Event()
    ref = SlowDiary.start([], gate)
    ref.tell("wait")
    ref.tell("next")
    asked = ref.ask("read")
    await settled()
    assert ref.mailbox == 2
    gate.set()
    assert await asked == ["waits", "wait", "next", "read"]


async def test_what_an_actor_raises_is_raised_at_the_asker() -> None:
    ref = Diary.start([])
    with pytest.raises(TaskNotFound):
        await ref.ask("refuse")
    with capture_logs(), pytest.raises(ValueError, match="as told"):
        await ref.ask("fail")


async def test_a_contract_error_at_an_ask_is_an_answer_and_no_failure() -> None:
    with capture_logs() as lines:
        for diary in (Diary.start([]), SlowDiary.start([])):
            with pytest.raises(TaskNotFound):
                await diary.ask("refuse")
            assert await diary.ask("read") == ["refuse", "read"]
    assert lines == []


async def test_a_contract_error_at_a_tell_is_a_failure() -> None:
    with capture_logs() as lines:
        ref = Diary.start([])
        ref.tell("refuse")
        await settled()
    assert ref.state == "failed"
    assert [line["error_type"] for line in lines] == ["TaskNotFound"]


async def test_a_full_mailbox_refuses_the_sender_and_keeps_what_it_has() -> None:
    class Small(Diary):
        mailbox_size = 3

    ref = Small.start([])
    for n in range(3):
        ref.tell(n)
    with pytest.raises(MailboxFull):
        ref.tell(3)
    with pytest.raises(MailboxFull):
        ref.ask(3)
    await settled()
    assert await ref.ask("read") == [0, 1, 2, "read"]


async def test_an_ask_that_is_not_answered_in_time_raises_and_the_late_reply_is_dropped() -> None:
    gate = asyncio.Event()
    ref = SlowDiary.start([], gate)
    with pytest.raises(pykka.Timeout):
        await ref.ask("wait", timeout=0.01)
    gate.set()
    assert await ref.ask("read", timeout=None) == ["waits", "wait", "read"]


async def test_an_asker_that_is_cancelled_disturbs_nobody() -> None:
    gate = asyncio.Event()
    ref = SlowDiary.start([], gate)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ref.ask("wait"), 0.01)
    gate.set()
    assert await ref.ask("read") == ["waits", "wait", "read"]


@pytest.mark.parametrize("slow", [False, True])
async def test_an_actor_that_asks_itself_is_told_at_once(slow: bool) -> None:
    class Narcissus(LoopActor):
        def on_receive(self, _message: Any) -> Any:
            return self.later() if slow else self.actor_ref.ask("me?")

        async def later(self) -> Any:
            await asyncio.sleep(0)
            return await self.actor_ref.ask("me?")

    ref = Narcissus.start()
    with capture_logs(), pytest.raises(RuntimeError, match="asked itself"):
        await ref.ask("who?")


async def test_an_actor_may_ask_another_and_a_task_of_its_own_may_ask_it() -> None:
    tasks = []

    class Asking(LoopActor):
        async def on_receive(self, message: Any) -> Any:
            if message == "background":
                tasks.append(asyncio.create_task(self.ask_later()))
                return None
            return await other.ask(message)

        async def ask_later(self) -> Any:
            return await self.actor_ref.ask("from the background")

    other, ref = Echo.start(), Asking.start()
    assert await ref.ask("through") == "through"
    await ref.ask("background")
    assert await tasks[0] == "from the background"


async def test_a_handler_may_return_an_ask_of_another_as_its_own_reply() -> None:
    class Forwarding(LoopActor):
        def on_receive(self, message: Any) -> Any:
            return other.ask(message)

    other = Echo.start()
    assert await Forwarding.start().ask("passed on") == "passed on"


async def test_nothing_that_would_block_the_loop_is_offered() -> None:
    ref = Echo.start()
    with pytest.raises(TypeError, match="block"):
        ref.proxy()
    with pytest.raises(RuntimeError, match="block"):
        ref.actor_stopped.wait()
    with pytest.raises(TypeError):
        ref.ask("x", block=True)  # type: ignore[call-arg]


async def test_errors_that_nobody_awaits_make_no_noise() -> None:
    noises: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noises.append(context))
    with capture_logs():
        ref = Diary.start([])
        ref.ask("fail")
        ref.ask("never handled")
        await settled()
        Diary.start([]).ask("read", timeout=0.0)
        await asyncio.sleep(0.01)
    del ref
    gc.collect()
    assert noises == []


async def test_a_dead_actor_says_so_to_every_sender_and_tells_are_counted() -> None:
    class Departed(Echo):
        pass

    ref = Departed.start()
    assert await ref.stop() is True
    assert await ref.stop() is False
    assert not ref.is_alive()
    assert ref.actor_stopped.is_set()
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(ActorDeadError):
                ref.tell("hello?")
        with pytest.raises(ActorDeadError):
            ref.ask("hello?")
    assert dead_letters.by_class["Departed"] == 3
    assert [line["event"] for line in lines] == ["dead_letters.counted"]


async def test_a_message_without_a_handler_is_told_in_the_log_by_its_type_alone() -> None:
    with capture_logs() as lines:
        ref = LoopActor.start(name="plain")
        assert await ref.ask("a secret") is None
    assert [(line["event"], line["message_type"]) for line in lines] == [
        ("message.unexpected", "str")
    ]
    assert "a secret" not in str(lines)


async def test_actors_look_after_nobody_unless_they_say_so() -> None:
    assert list(Echo.start()._cell.actor.describe_children()) == []  # type: ignore[union-attr]


async def test_ten_thousand_actors_come_and_go_and_leave_nothing() -> None:
    tasks = len(asyncio.all_tasks())
    for _ in range(2):
        refs = [SlowDiary.start([]) for _ in range(5_000)]
        assert len(asyncio.all_tasks()) == tasks
        asked = [ref.ask("read", timeout=None) for ref in refs]
        assert len(await asyncio.gather(*asked)) == 5_000
        await asyncio.gather(*[ref.stop(timeout=None) for ref in refs])
        await settled()
        assert len(asyncio.all_tasks()) == tasks
    assert pykka.ActorRegistry.get_all() == []


async def test_a_stopped_actor_is_freed_without_the_collector() -> None:
    class Counted(Echo):
        living = 0

        def __init__(self) -> None:
            super().__init__()
            Counted.living += 1

        def __del__(self) -> None:
            Counted.living -= 1

    gc.disable()
    try:
        refs = [Counted.start() for _ in range(100)]
        await asyncio.gather(*[ref.stop() for ref in refs])
        assert Counted.living == 0
    finally:
        gc.enable()


async def test_an_idle_actor_takes_less_than_two_kibibytes() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        refs: list[LoopRef] = [Echo.start(name=f"sessions/{n}") for n in range(1_000)]
        await settled()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / len(refs)
    print(f"an idle actor takes {each:.0f} bytes")  # noqa: T201
    assert each < 2048
