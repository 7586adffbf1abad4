"""Instances that freeze, stand still or starve, and go on (FAULTS, c1)."""

import asyncio
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.in_hand import held_by, nothing_is_held
from tests.support.client import next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import Follower, eventually
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service

KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"


def is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# P5, P6


async def test_a_frozen_instance_that_wakes_up_does_no_harm(
    redis_server: RedisServer, prefix: str
) -> None:
    """It freezes with callbacks in its hands that it has read and not applied."""
    quick: Any = {"callbacks": {"claim_idle": 1, "poll_seconds": 0.05}}
    stays, moves = Follower(), Follower()
    async with (
        process_service(
            *(redis_server.url, prefix),
            environ={"FAILPOINTS": "callbacks.before_apply=stop:1"},
            **quick,
        ) as zombie,
        FakeExecutor(redis_server.url, prefix) as executor,
        stays.following(zombie),
    ):
        await zombie.send()
        task = await executor.take()
        await executor.stream_answer(task, "a", "b")
        await eventually(lambda: is_frozen(zombie.pid))
        frozen = time.monotonic()
        async with running_service(redis_server.url, prefix, **quick) as other:
            async with moves.following(other):
                await moves.until(lambda: moves.text == "ab")
                await executor.report(task, "delta", {"text": "c"})
                await executor.complete(task, "abc")
                await moves.ended()
            await asyncio.sleep(max(0.0, 8 - (time.monotonic() - frozen)))
            zombie.send_signal(signal.SIGCONT)
            await stays.ended()
            await zombie.ready()
            # It serves again like any other, and what both have told is one and the same log.
            assert (await zombie.send(key=KEY)).status == 202
            task = await executor.take()
            await executor.stream_answer(task, "d")
            await executor.complete(task, "d")
            await stays.ended(2)
            assert stays.text == "abcd"
            events = (await other.events())["events"]
            assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
            assert [event for event in events if event["type"] == "agent_response"] == [
                event for event in stays.events if event["type"] == "agent_response"
            ]
            await eventually(lambda: nothing_is_held(executor, task))
            actors = (await zombie.get("/health/detailed")).json["components"]["actors"]
            assert (actors["status"], actors["restarts"]) == ("healthy", 0)


async def test_a_pause_of_two_seconds_has_nothing_taken_over_and_nobody_cut_off(
    redis_server: RedisServer, prefix: str
) -> None:
    follower = Follower()
    async with (
        process_service(
            *(redis_server.url, prefix), environ={"FAILPOINTS": "callbacks.before_apply=stop:1"}
        ) as paused,
        FakeExecutor(redis_server.url, prefix) as executor,
        follower.following(paused),
    ):
        await paused.send()
        task = await executor.take()
        await executor.stream_answer(task, "a")
        await eventually(lambda: is_frozen(paused.pid))
        frozen = time.monotonic()
        held = await held_by(executor, task)
        async with running_service(redis_server.url, prefix):  # looks at once what there is to take
            await asyncio.sleep(max(0.0, 2 - (time.monotonic() - frozen)))
            assert held.items() <= (await held_by(executor, task)).items()
            paused.send_signal(signal.SIGCONT)
            await follower.until(lambda: follower.text == "a")
            assert follower.closes == []


# P10


async def test_a_loop_that_stands_still_for_seconds_loses_nobody(
    redis_server: RedisServer, prefix: str
) -> None:
    follower = Follower()
    async with (
        process_service(
            *(redis_server.url, prefix),
            environ={"FAILPOINTS": "http.before_202=sleep:6"},
            websocket={"ping_interval": 3, "ping_timeout": 3},
        ) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        follower.following(service),
    ):
        sending = asyncio.create_task(service.send())
        task = await executor.take()
        await executor.stream_answer(task, *"abc")
        await executor.complete(task, "abc")
        assert (await sending).status == 202
        await follower.ended()
        assert follower.text == "abc"
        assert follower.closes == []


# P11


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_an_instance_without_file_descriptors_keeps_whom_it_has_and_recovers(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        process_service(redis_server.url, prefix) as service,
        service.connect() as socket,
    ):
        await next_frame(socket)
        await service.send("acme/s-2")  # whatever it opens once, it has opened
        open_now = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
        before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (open_now + 5, before[1]))
        crowd = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(20)]
        try:
            logged, used = len(service.log), cpu_seconds(service.pid)
            await asyncio.sleep(2)
            assert cpu_seconds(service.pid) - used < 1, "it spins"
            assert service.log[logged:].count("\n") < 20
            await say(socket, "ping", "p-1")
            assert (await next_frame(socket))["type"] == "pong"
        finally:
            for _, writer in crowd:
                writer.close()
        await service.ready()
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        async with service.connect() as another:
            assert (await next_frame(another))["type"] == "connection_ack"
