"""Instances and workers that are killed, at any step (FAULTS, c1)."""

import itertools
import signal
import time
from typing import Any

import pytest
from tornado.httpclient import HTTPError

from tests.faults.in_hand import held_by, instance_id, nothing_is_held
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.figures import measured
from tests.support.follower import Follower, eventually
from tests.support.processes import worker_process
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, process_service, running_service

TAKEN_OVER = 10.0  # seconds: section 5 of the contract
KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"


# P1


async def test_a_killed_instances_callbacks_are_taken_over_and_its_clients_miss_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    patient: Any = {"callbacks": {"poll_seconds": 5}}  # nearly always in the middle of a read
    follower = Follower()
    async with (
        process_service(redis_server.url, prefix, **patient) as first,
        running_service(redis_server.url, prefix) as second,
        FakeExecutor(redis_server.url, prefix) as executor,
        follower.following(first, second),
    ):
        await second.send()
        task = await executor.take()
        await executor.stream_answer(task, "a")
        await follower.until(lambda: follower.text == "a")
        said = "a" + await stopped_with_callbacks_in_hand(first, executor, task)
        await first.kill()
        killed = time.monotonic()
        await executor.report(task, "delta", {"text": "z"})
        await executor.complete(task, "whole")
        await follower.ended(within=TAKEN_OVER)
        measured("takeover of a killed instance's callbacks", time.monotonic() - killed, "s")
        assert follower.text == said + "z"
        assert follower.closes[0] == 1006
        await eventually(lambda: nothing_is_held(executor, task))


async def stopped_with_callbacks_in_hand(
    instance: RunningProcess, executor: FakeExecutor, task: TakenTask
) -> str:
    """What a stopped reader is given it never sees; says what had to be streamed for that."""
    said = ""
    for letter in itertools.cycle("bcdefgh"):
        if letter == "b":  # if all the others got it none, it was stopped between two reads
            instance.send_signal(signal.SIGCONT)
            name = await instance_id(instance)
            instance.send_signal(signal.SIGSTOP)
        await executor.report(task, "delta", {"text": letter})
        said += letter
        if name in await held_by(executor, task):
            break
    return said


@pytest.mark.alone
async def test_a_killed_instance_is_out_of_the_cluster_within_fifteen_seconds(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as stays:

        async def instances() -> int:
            count: int = (await stays.get("/ws/stats")).json["cluster"]["instances"]
            return count

        async def are(count: int) -> bool:
            return await instances() == count

        async with process_service(redis_server.url, prefix) as dies:
            await eventually(lambda: are(2))
            await dies.kill()
        killed = time.monotonic()
        await eventually(lambda: are(1))
        measured("a killed instance is out of every count", time.monotonic() - killed, "s")


# P2


@pytest.mark.parametrize(
    "place",
    [
        "chat_router.on_batch",
        "chat_router.after_submit",
        "tasks.after_take",
        "http.before_202",
    ],
)
async def test_a_message_sent_again_after_a_crash_at_any_step_is_one_task(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    follower = Follower()
    async with (
        running_service(redis_server.url, prefix) as second,
        FakeExecutor(redis_server.url, prefix) as executor,
        follower.following(second),
    ):
        async with process_service(
            redis_server.url, prefix, environ={"FAILPOINTS": f"{place}=exit"}
        ) as first:
            with pytest.raises((OSError, HTTPError)):
                await first.send(key=KEY)
            assert await first.exited() == 9
        again = await second.send(key=KEY)
        assert again.status == 202
        task = await executor.take()
        assert task.task_id == again.json["task_id"]
        await executor.stream_answer(task, "once")
        await executor.complete(task, "once")
        await follower.ended()
        assert follower.types == ["user_message", "task_update", "agent_delta", "agent_response"]
        assert await executor.redis.xlen(task.stream) == 0


@pytest.mark.parametrize("place", ["callbacks.before_apply", "callbacks.after_apply"])
async def test_a_crash_before_or_after_callbacks_are_applied_shows_nothing_twice(
    redis_server: RedisServer, prefix: str, place: str
) -> None:
    follower = Follower()
    async with FakeExecutor(redis_server.url, prefix) as executor:
        async with process_service(
            redis_server.url, prefix, environ={"FAILPOINTS": f"{place}=exit"}
        ) as first:
            await first.send()
            task = await executor.take()
            await executor.stream_answer(task, "a", "b")
            assert await first.exited() == 9
        quick = {"callbacks": {"claim_idle": 0.2, "poll_seconds": 0.05}}
        async with (
            running_service(redis_server.url, prefix, **quick) as second,
            follower.following(second),
        ):
            await follower.until(lambda: follower.text == "ab")
            await executor.complete(task, "ab")
            await follower.ended()
            assert (await second.status(task.task_id))["result"]["response"] == "ab"
            await eventually(lambda: nothing_is_held(executor, task))
    assert follower.types.count("agent_delta") == 2


async def test_a_push_that_was_done_before_a_crash_is_not_done_again(
    redis_server: RedisServer, prefix: str
) -> None:
    push = {
        "action_id": KEY,
        "action_type": "websocket.send_message",
        "tenant_id": "acme",
        "session_id": "s-1",
        "message_data": {"n": 1},
    }
    follower = Follower()
    async with FakeExecutor(redis_server.url, prefix) as executor:
        async with process_service(
            redis_server.url, prefix, environ={"FAILPOINTS": "pushes.after_apply=exit"}
        ) as first:
            await executor.push(push)
            assert await first.exited() == 9
        quick = {"callbacks": {"claim_idle": 0.2, "poll_seconds": 0.05}}
        async with (
            running_service(redis_server.url, prefix, **quick) as second,
            follower.following(second),
        ):
            await eventually(lambda: _is_empty(executor, f"{prefix}actions"))
            await second.post("/api/ws/send", {**_own_fields(push), "action_id": KEY})
            await second.post("/api/ws/send", _own_fields(push))
            await follower.until(lambda: len(follower.events) == 2)
    assert [event["data"] for event in follower.events] == [{"n": 1}, {"n": 1}]


async def _is_empty(executor: FakeExecutor, stream: str) -> bool:
    return int(await executor.redis.xlen(stream)) == 0


def _own_fields(push: dict[str, Any]) -> dict[str, Any]:
    return {name: push[name] for name in ("tenant_id", "session_id", "message_data")}


# P3


async def test_a_task_whose_worker_is_killed_begins_again_and_the_client_forgets_the_first_half(
    redis_server: RedisServer, prefix: str
) -> None:
    words = " ".join(f"w{number}" for number in range(20))
    follower = Follower()
    async with (
        running_service(redis_server.url, prefix, execution={"visibility_timeout": 1}) as service,
        follower.following(service),
    ):
        async with worker_process(redis_server.url, prefix) as worker:
            sent = await service.send(message=words, context={"delay_ms": 100})
            await follower.until(lambda: follower.types.count("agent_delta") >= 3)
            worker.kill()
        async with worker_process(redis_server.url, prefix):
            await follower.ended(within=20)
        task = await service.status(sent.json["task_id"])
    resets = [event["data"] for event in follower.events if event["data"].get("reset")]
    assert resets == [{"status": "running", "attempt": 2, "reset": True}]
    assert follower.text == task["result"]["response"] == words
    assert task["attempt"] == 2
