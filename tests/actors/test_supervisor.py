"""The supervisor restarts, tells, and gives up in time."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pykka import ActorDeadError
from structlog.testing import capture_logs

from actors.loop_actor import LoopActor, LoopRef
from actors.restart_policy import RestartPolicy
from actors.supervision_log import SupervisionLog
from actors.supervisor import ChildSpec, GetTree, SupervisorActor, SupervisorRef, Totals
from tests.actors.examples import Diary, Echo, Job, Lived, SlowDiary

SOON = RestartPolicy(first_delay=0.001, max_delay=0.002)


class Escalations:
    """What the composition root would hear."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.heard = asyncio.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.heard.set()


@asynccontextmanager
async def supervising(
    policy: RestartPolicy = SOON, log: SupervisionLog | None = None
) -> AsyncIterator[tuple[SupervisorRef, Escalations]]:
    escalations = Escalations()
    supervisor = SupervisorActor.start(escalations, policy=policy, log=log)
    with capture_logs():
        yield supervisor, escalations
        await supervisor.stop()


def told(supervisor: SupervisorRef) -> list[tuple[str, str]]:
    events = reversed(supervisor.log.newest(500))
    return [(event["event"].removeprefix("actor."), event["actor"]) for event in events]


async def test_children_start_in_order_and_stop_in_reverse() -> None:
    async with supervising() as (supervisor, _):
        first = supervisor.spawn(ChildSpec("first", Echo))
        second = supervisor.spawn(ChildSpec("second", Lived, args=([],), kwargs={"gates": {}}))
        assert await second.ask(1) == 2
    assert (first.state, second.state, supervisor.state) == ("stopped",) * 3
    assert told(supervisor) == [
        ("started", "supervisor"),
        ("started", "supervisor/first"),
        ("started", "supervisor/second"),
        ("stopped", "supervisor/second"),
        ("stopped", "supervisor/first"),
        ("stopped", "supervisor"),
    ]


async def test_a_name_is_given_once_and_a_stopped_supervisor_starts_nobody() -> None:
    async with supervising() as (supervisor, _):
        supervisor.spawn(ChildSpec("echo", Echo))
        with pytest.raises(ValueError, match="exists"):
            supervisor.spawn(ChildSpec("echo", Echo))
    with pytest.raises(ActorDeadError):
        supervisor.spawn(ChildSpec("late", Echo))


async def test_a_failed_child_is_restarted_behind_the_same_ref_and_the_log_tells_all() -> None:
    async with supervising() as (supervisor, escalations):
        ref = supervisor.spawn(ChildSpec("diary", Diary, ([],)))
        ref.tell("fail")
        assert await ref.ask("read") == ["fail", "read"]
        restarted, failed, *_ = supervisor.log.newest()
    assert (failed["event"], failed["actor"]) == ("actor.failed", "supervisor/diary")
    assert (failed["message_type"], failed["mailbox"], failed["restarts"]) == ("str", 1, 0)
    assert (failed["outcome"], failed["error"]) == ("restart", "as told")
    assert "raise ValueError" in failed["traceback"]
    assert (restarted["event"], restarted["restarts"]) == ("actor.restarted", 1)
    assert 0 <= restarted["delay_ms"] <= 1
    assert escalations.reasons == []


async def test_other_children_do_not_notice() -> None:
    async with supervising() as (supervisor, _):
        broken = supervisor.spawn(ChildSpec("broken", Diary, ([],)))
        other = supervisor.spawn(ChildSpec("other", Diary, ([],)))
        broken.tell("fail")
        assert await other.ask("read") == ["read"]
        assert (await broken.ask("read"), other.restarts) == (["fail", "read"], 0)


async def test_one_that_fails_too_often_is_given_up_and_the_root_hears_why() -> None:
    policy = RestartPolicy(max_restarts=2, first_delay=0.001)
    async with supervising(policy) as (supervisor, escalations):
        ref = supervisor.spawn(ChildSpec("diary", Diary, ([],)))
        for _ in range(3):
            ref.tell("fail")
        waiting = ref.ask("read")
        await escalations.heard.wait()
        assert escalations.reasons == [
            "supervisor/diary failed 3 times within 60 s, at last with ValueError"
        ]
        with pytest.raises(ActorDeadError):
            await waiting
        assert ref.state == "failed"
        assert supervisor.totals() == Totals(
            alive=1, restarts=2, failures=3, failed=1, restarting=0
        )
        newest = supervisor.log.newest(1)[0]
    assert (newest["event"], newest["reason"]) == ("actor.escalated", escalations.reasons[0])


async def test_a_child_that_cannot_start_is_tried_again_and_then_given_up() -> None:
    class Stillborn(LoopActor):
        def on_start(self) -> None:
            raise OSError("no ground")

    async with supervising() as (supervisor, escalations):
        ref = supervisor.spawn(ChildSpec("stillborn", Stillborn))
        await escalations.heard.wait()
        assert (ref.restarts, ref.state) == (5, "failed")


async def test_an_escalation_that_raises_does_not_take_the_supervisor_with_it() -> None:
    def deaf(reason: str) -> None:
        raise OSError(reason)

    with capture_logs() as lines:
        supervisor = SupervisorActor.start(deaf, policy=RestartPolicy(max_restarts=0))
        ref = supervisor.spawn(ChildSpec("diary", Diary, ([],)))
        ref.tell("fail")
        with pytest.raises(ActorDeadError):
            await ref.ask("read")
        assert (await supervisor.ask(GetTree()))["state"] == "running"
        await supervisor.stop()
    assert "escalation.failed" in [line["event"] for line in lines]


async def test_a_watched_actor_is_told_of_and_neither_restarted_nor_kept() -> None:
    async with supervising() as (supervisor, escalations):
        ref = Diary.start([], name="supervisor/sessions/7", supervisor=supervisor)
        other = Diary.start([], supervisor=supervisor)
        assert supervisor.totals().alive == 3
        ref.tell("fail")
        with pytest.raises(ActorDeadError):
            await ref.ask("read")
        assert ref.state == "failed"
        assert supervisor.totals() == Totals(
            alive=2, restarts=0, failures=1, failed=0, restarting=0
        )
        assert await other.ask("read") == ["read"]
        gone = weakref.ref(other._cell)
        del other
        gc.collect()
        assert gone() is None
        assert supervisor.totals().alive == 1
    assert ("failed", "supervisor/sessions/7") in told(supervisor)
    assert escalations.reasons == []


async def test_thousands_of_watched_actors_do_not_fill_the_log() -> None:
    async with supervising() as (supervisor, _):
        refs = [Echo.start(supervisor=supervisor) for _ in range(2_000)]
        assert supervisor.totals().alive == 2_001
        await asyncio.gather(*[ref.stop() for ref in refs])
        assert supervisor.totals().alive == 1
        assert len(supervisor.log.newest(500)) == 1


async def test_an_actor_has_one_supervisor_and_a_dead_one_is_not_counted() -> None:
    async with supervising() as (supervisor, _):
        child = supervisor.spawn(ChildSpec("echo", Echo))
        with pytest.raises(ValueError, match="already"):
            supervisor.watch(child)
        dead = Echo.start()
        await dead.stop()
        supervisor.watch(dead)
        assert supervisor.totals().alive == 2


async def test_the_tree_shows_every_child_in_every_state() -> None:
    policy = RestartPolicy(max_restarts=1, first_delay=60, max_delay=60)
    async with supervising(policy) as (supervisor, _):
        supervisor.spawn(ChildSpec("echo", Echo))
        broken = supervisor.spawn(ChildSpec("broken", Diary, ([],)))
        supervisor.spawn(ChildSpec("slow", Lived, ([], {"start": asyncio.Event()})))
        done = supervisor.spawn(ChildSpec("done", Echo))
        await done.stop()
        broken.tell("fail")
        broken.tell("waits")
        await asyncio.sleep(0.01)
        tree = await supervisor.ask(GetTree())
        assert supervisor.totals() == Totals(
            alive=3, restarts=0, failures=1, failed=0, restarting=1
        )
        supervisor._supervisor._children["supervisor/slow"].cell.stop(0.01, drop=True)
    assert (tree["name"], tree["class"], tree["state"]) == (
        "supervisor",
        "SupervisorActor",
        "running",
    )
    assert [(n["name"], n["state"], n["mailbox"]) for n in tree["children"]] == [
        ("echo", "running", 0),
        ("broken", "restarting", 1),
        ("slow", "starting", 0),
        ("done", "stopped", 0),
    ]
    assert broken.state == "stopped"


async def test_a_supervisor_that_fails_itself_escalates_and_its_children_work_on() -> None:
    class Fragile(SupervisorActor):
        def on_receive(self, message: Any) -> Any:
            if message == "break":
                raise OSError("broken")
            return super().on_receive(message)

    escalations = Escalations()
    with capture_logs():
        supervisor = Fragile.start(escalations)
        ref = supervisor.spawn(ChildSpec("diary", Diary, ([],)))
        supervisor.tell("break")
        await escalations.heard.wait()
        assert escalations.reasons == ["supervisor itself failed: OSError('broken')"]
        assert await ref.ask("read") == ["read"]
        ref.tell("fail")
        with pytest.raises(ActorDeadError):
            await ref.ask("read")
    assert supervisor.totals() == Totals(alive=0, restarts=0, failures=1, failed=1, restarting=0)


async def test_a_message_it_does_not_know_is_told_and_harms_nothing() -> None:
    async with supervising() as (supervisor, escalations):
        assert await supervisor.ask(Job()) is None
        assert supervisor.is_alive()
    assert escalations.reasons == []


async def test_a_supervisor_may_itself_be_watched_by_another() -> None:
    async with supervising() as (upper, _):
        lower = SupervisorActor.start(print, name="supervisor/lower", supervisor=upper)
        assert upper.totals().alive == 2
        await lower.stop()
        assert upper.totals().alive == 1


async def test_a_child_that_shrugs_off_its_end_is_left_behind() -> None:
    release = asyncio.Event()

    class Stubborn(LoopActor):
        async def on_receive(self, _message: Any) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    class Hasty(SupervisorActor):
        child_stop_seconds = 0.01

    with capture_logs() as lines:
        supervisor = Hasty.start(print)
        ref = supervisor.spawn(ChildSpec("stubborn", Stubborn))
        ref.tell("stay")
        await asyncio.sleep(0)
        await supervisor.stop()
        assert [line["actor"] for line in lines if line["event"] == "child.abandoned"] == [
            "supervisor/stubborn"
        ]
        release.set()
        await ref.stop()


async def test_a_flood_of_failures_reaches_a_supervisor_whose_mailbox_is_full() -> None:
    class Narrow(SupervisorActor):
        mailbox_size = 1

    escalations = Escalations()
    with capture_logs():
        supervisor = Narrow.start(escalations, policy=SOON)
        refs: list[LoopRef] = [
            supervisor.spawn(ChildSpec(f"diary-{n}", SlowDiary, ([],))) for n in range(50)
        ]
        for ref in refs:
            ref.tell("fail")
        await asyncio.gather(*[ref.ask("read", timeout=None) for ref in refs])
        assert supervisor.totals() == Totals(
            alive=51, restarts=50, failures=50, failed=0, restarting=0
        )
        await supervisor.stop()
    assert escalations.reasons == []
