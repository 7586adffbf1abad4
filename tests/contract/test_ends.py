"""Section 5: deadlines, cancellations, other ends, and pushes (sentences 5.35 to 5.47)."""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import pytest

from common.domain.ids import TaskId
from common.domain.tasks import Submitted
from tests.contract.talk import Talk, talk, talk_to_two, until
from tests.support.client import frames_until, next_frame
from tests.support.fake_executor import TakenTask
from tests.support.redis_server import RedisServer
from tests.support.stores import key_of, message, stores

NOTICED = 1000  # ms, as the contract says
GRACE = 1500  # ms; a cancellation is seen under way before that
DAY = 86_400


def unix_ms(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


async def told_to_stop(each: Talk, task: TakenTask) -> bytes:
    """The value of the task's cancel key, once it is there."""

    async def value() -> Any:
        found = await each.redis.get(f"{each.prefix}cancel:{task.task_id}")
        return None if found is None else (found,)

    (reason,) = await until(value)
    assert DAY - 60 <= await each.redis.ttl(f"{each.prefix}cancel:{task.task_id}") <= DAY
    return bytes(reason)


@pytest.mark.alone
async def test_5_35_and_5_41_a_deadline_is_noticed_within_a_second_and_told_to_the_worker(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.control() as heard:
        task = await each.started(timeout=3)
        await each.executor.report(task, "delta", {"text": "so far"})
        status = await each.service.task_ended(task.task_id)
        late_by = unix_ms(status["finished_at"]) - task.action["deadline"]
        assert 0 <= late_by <= NOTICED
        assert status["status"] == "timeout"
        assert status["result"] == {"response": "so far", "partial": True}
        await told_to_stop(each, task)
        assert (await heard())["task_id"] == task.task_id
        assert await each.is_pending(task)  # until its worker removes it
        (end,) = await each.ends(task)
        assert end["data"].items() >= {"code": "task_timeout", "status": "timeout"}.items()


@pytest.mark.alone
async def test_5_35_so_are_many_deadlines_of_one_moment(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        talk(redis_server, prefix) as each,
        stores(redis_server.url, prefix, socket_timeout=15) as other,
    ):
        actions = [message(key_of(f"s-{number}"), timeout=1.5) for number in range(500)]
        taken = [
            found
            for found in await other.submissions.submit(actions)
            if isinstance(found, Submitted)
        ]
        await other.submissions.set_out(list(zip(actions, taken, strict=True)))
        entries = await each.redis.xrange(each.executor.stream("normal"))
        deadlines = [orjson.loads(fields[b"action"])["deadline"] for _, fields in entries]
        assert len(deadlines) == len(actions)
        for action in actions:

            async def ended(task_id: TaskId = action.task_id) -> int | None:
                return (await other.task(task_id)).finished_at

            assert await until(ended) <= max(deadlines) + NOTICED


async def test_5_41_a_task_that_nobody_takes_times_out_as_well(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task_id = await each.sent(timeout=1)
        assert (await each.service.task_ended(task_id))["status"] == "timeout"
        task = await each.executor.take()  # a worker finds it later, told not to run it
        assert await each.now_ms() >= task.action["deadline"]
        await told_to_stop(each, task)


@pytest.mark.alone
@pytest.mark.parametrize("instances", [1, 2])
async def test_5_35_and_5_39_the_grace_of_a_cancellation_ends_it_once(
    redis_server: RedisServer, prefix: str, instances: int
) -> None:
    execution = {"cancel_grace": GRACE / 1000}
    if instances == 2:
        async with talk_to_two(redis_server, prefix, execution=execution) as (each, _):
            await check_grace(each)
    else:
        async with talk(redis_server, prefix, execution=execution) as each:
            await check_grace(each)


async def check_grace(each: Talk) -> None:
    task = await each.started()
    before = await each.now_ms()
    assert await each.cancel(task.task_id, "enough") == (202, "cancelling")
    after = await each.now_ms()
    assert (await each.service.status(task.task_id))["status"] == "cancelling"
    status = await each.service.task_ended(task.task_id)
    finished = unix_ms(status["finished_at"])
    assert before + GRACE <= finished <= after + GRACE + NOTICED
    assert status["status"] == "cancelled"
    await each.executor.report(task, "cancelled")  # it stopped after all
    await each.executor.report(task, "completed", {"response": "too late"})
    await each.handled(task)
    (end,) = await each.ends(task)
    assert end["data"] == {"status": "cancelled", "message": "enough"}


async def test_5_39_what_is_cancelling_at_its_deadline_ends_as_cancelled(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"cancel_grace": 60}) as each:
        task = await each.started(timeout=3)
        assert await each.cancel(task.task_id) == (202, "cancelling")
        status = await each.service.task_ended(task.task_id)
        assert status["status"] == "cancelled"
        assert unix_ms(status["finished_at"]) >= task.action["deadline"]
        assert len(await each.ends(task)) == 1


ENDS: list[tuple[str, Mapping[str, Any]]] = [
    ("grace", {"execution": {"cancel_grace": 0.2}}),
    ("timeout", {}),
    ("gap", {"execution": {"visibility_timeout": 0.2}, "callbacks": {"gap_timeout": 0.5}}),
    ("attempts", {"execution": {"max_attempts": 1, "visibility_timeout": 0.3}}),
    ("retries", {"execution": {"max_attempts": 1}}),
]


@pytest.mark.parametrize(("cause", "settings"), ENDS, ids=[cause for cause, _ in ENDS])
async def test_5_36_an_end_made_by_the_orchestrator_is_made_once_and_told_to_the_workers(
    redis_server: RedisServer, prefix: str, cause: str, settings: Mapping[str, Any]
) -> None:
    async with (
        talk_to_two(redis_server, prefix, **settings) as (each, _),
        each.control() as heard,
    ):
        task = await each.started(timeout=1 if cause == "timeout" else 60)
        match cause:
            case "grace":
                await each.cancel(task.task_id)
            case "gap":
                await each.executor.report(task, "delta", {"text": "x"}, seq=3)
            case "retries":
                error = {"type": "t", "message": "m"}
                await each.executor.report(task, "failed", {"error": error, "retryable": True})
        status = await each.service.task_ended(task.task_id)
        assert len(await each.ends(task)) == 1
        await told_to_stop(each, task)
        assert (await heard())["task_id"] == task.task_id
        expected = {"grace": "cancelled", "timeout": "timeout"}.get(cause, "failed")
        assert status["status"] == expected
        if cause == "attempts":
            (letter,) = await until(lambda: each.executor.dead_letters("execute"))
            assert letter[b"task_id"].decode() == task.task_id
            await until(lambda: each.is_gone(task))
        else:
            assert await each.is_pending(task)
            assert await each.executor.dead_letters("execute") == []


@pytest.mark.parametrize("reason", [None, "", 'because "é"\n'])
async def test_5_37_a_cancellation_sets_the_key_and_tells_the_channel(
    redis_server: RedisServer, prefix: str, reason: str | None
) -> None:
    async with talk(redis_server, prefix) as each, each.control() as heard:
        task = await each.started("acme/s-3")
        assert (await each.cancel(task.task_id, reason))[0] == 202
        assert (await told_to_stop(each, task)).decode() == (reason or "")
        assert await heard() == {
            "type": "cancel",
            "task_id": task.task_id,
            "tenant_id": "acme",
            "session_id": "s-3",
            "reason": reason or "",
        }


async def test_5_37_workers_are_told_of_what_was_cancelled_before_it_was_taken(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task_id = await each.sent()
        assert await each.cancel(task_id) == (200, "cancelled")
        task = await each.executor.take()
        assert await told_to_stop(each, task) == b""
        await each.executor.report(task, "cancelled")  # as section 5 tells a worker to
        await each.executor.finish(task)
        await each.handled(task)
        assert len(await each.ends(task)) == 1


async def test_5_40_the_deadline_counts_from_the_entry_into_the_work_stream(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        first = await each.started()
        second_id = await each.sent(timeout=30)  # waits for the first
        sent_at = await each.now_ms()

        async def a_moment_has_passed() -> bool:
            return await each.now_ms() >= sent_at + 50

        await until(a_moment_has_passed)
        its_turn_comes = await each.now_ms()
        await each.executor.complete(first)
        second = await each.executor.take()
        assert second.task_id == second_id
        assert its_turn_comes <= second.action["deadline"] - 30_000 <= await each.now_ms()


async def test_5_40_what_waits_too_long_for_its_turn_times_out(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"max_wait": 2}) as each:
        first = await each.started()
        second_id, third_id = await each.sent(), await each.sent()
        for task_id in (second_id, third_id):
            status = await each.service.task_ended(task_id)
            assert (status["status"], status["started_at"]) == ("timeout", None)
        assert (await each.service.status(first.task_id))["status"] == "running"
        await each.executor.complete(first)
        await each.service.task_ended(first.task_id)
        assert (await each.taken()).attempt == 1  # the session goes on


async def test_5_47_pushes_by_the_stream_reach_their_sessions_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        talk(redis_server, prefix) as each,
        each.joined("acme/s-1") as one,
        each.joined("acme/s-2") as two,
        each.joined("other/s-1") as stranger,
    ):
        common = {"tenant_id": "acme", "created_at": "2026-01-31T10:00:00.123Z", "metadata": {}}
        send = {
            **common,
            "action_type": "websocket.send_message",
            "action_id": str(uuid.uuid4()),
            "session_id": "s-1",
            "message_data": {"n": 1},
        }
        to_some = {
            **common,
            "action_type": "websocket.broadcast",
            "action_id": str(uuid.uuid4()),
            "message_data": {"n": 2},
            "target_sessions": ["s-2"],
        }
        to_all = {
            **common,
            "action_type": "websocket.broadcast",
            "action_id": str(uuid.uuid4()),
            "message_data": {"n": 3},
        }
        for action in (send, send, to_some, to_some, to_all):
            await each.executor.push(action)
        heard_by_one = await frames_until(one, "broadcast")
        assert [frame["data"] for frame in heard_by_one] == [{"n": 1}, {"n": 3}]
        heard_by_two = [await next_frame(two) for _ in range(2)]
        assert [frame["data"] for frame in heard_by_two] == [{"n": 2}, {"n": 3}]
        assert [frame["data"] for frame in await each.frames("acme/s-1")] == [{"n": 1}]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stranger.recv()
        # The same by REST is the same action.
        body = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"n": 1}}
        again = await each.service.post("/api/ws/send", {**body, "action_id": send["action_id"]})
        assert (again.status, again.json) == (202, {"action_id": send["action_id"]})
        assert len(await each.frames("acme/s-1")) == 1
