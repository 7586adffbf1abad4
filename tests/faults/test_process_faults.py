"""Instances and workers that are killed, frozen, stopped or starved (FAULTS, c1)."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPError

from tests.support.figures import measured
from tests.support.follower import Follower, answering, eventually
from tests.support.processes import PROJECT
from tests.support.redis_server import RedisServer, free_port
from tests.support.service import (
    Address,
    FakeExecutor,
    RunningProcess,
    TakenTask,
    close_code,
    next_frame,
    process_service,
    running_service,
    say,
)

TAKEN_OVER = 10.0  # seconds: section 5 of the contract
KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"


async def held_by(executor: FakeExecutor, task: TakenTask) -> dict[str, int]:
    """How many callbacks each instance has taken and not finished."""
    stream = task.action["callback_stream"]
    (group,) = await executor.redis.xinfo_groups(stream)
    consumers = await executor.redis.xinfo_consumers(stream, group["name"])
    return {each["name"].decode(): each["pending"] for each in consumers if each["pending"]}


async def nothing_is_held(executor: FakeExecutor, task: TakenTask) -> bool:
    return await held_by(executor, task) == {}


async def instance_id(address: Address) -> str:
    name: str = (await address.get("/ws/stats")).json["instance"]["instance_id"]
    return name


def is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


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
        name = await instance_id(first)
        first.send_signal(signal.SIGSTOP)  # what is given to it from now on, it never sees
        texts = iter("bcdefghijklmnopqrstuvw")
        while name not in await held_by(executor, task):
            await executor.report(task, "delta", {"text": next(texts)})
        await first.kill()
        killed = time.monotonic()
        await executor.report(task, "delta", {"text": next(texts)})
        await executor.complete(task, "whole")
        await follower.ended(within=TAKEN_OVER)
        measured("takeover of a killed instance's callbacks", time.monotonic() - killed, "s")
        assert "abcdefghijklmnopqrstuvw".startswith(follower.text)
        assert len(follower.text) >= 3
        assert follower.closes[0] == 1006
        await eventually(lambda: nothing_is_held(executor, task))


# P2


@pytest.mark.parametrize(
    "place",
    [
        "chat_router.on_batch",
        "chat_router.after_submit",
        "tasks.after_deliver",
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


@contextlib.asynccontextmanager
async def real_worker(url: str, prefix: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "execution", "--redis-url", url, "--key-prefix", prefix),
        *("--log-level", "error"),
        cwd=PROJECT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_task_whose_worker_is_killed_begins_again_and_the_client_forgets_the_first_half(
    redis_server: RedisServer, prefix: str
) -> None:
    words = " ".join(f"w{number}" for number in range(20))
    follower = Follower()
    async with (
        running_service(redis_server.url, prefix, execution={"visibility_timeout": 1}) as service,
        follower.following(service),
    ):
        async with real_worker(redis_server.url, prefix) as worker:
            sent = await service.send(message=words, context={"delay_ms": 100})
            await follower.until(lambda: follower.types.count("agent_delta") >= 3)
            worker.kill()
        async with real_worker(redis_server.url, prefix):
            await follower.ended(within=20)
        task = await service.status(sent.json["task_id"])
    resets = [event["data"] for event in follower.events if event["data"].get("reset")]
    assert resets == [{"status": "running", "attempt": 2, "reset": True}]
    assert follower.text == task["result"]["response"] == words
    assert task["attempt"] == 2


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
        held = await held_by(executor, task)
        async with running_service(redis_server.url, prefix):
            await asyncio.sleep(2)
            assert held.items() <= (await held_by(executor, task)).items()
            paused.send_signal(signal.SIGCONT)
            await follower.until(lambda: follower.text == "a")
            assert follower.closes == []


# P7


async def test_rolling_restarts_lose_no_message_and_spread_their_clients(
    redis_server: RedisServer, prefix: str
) -> None:
    slow_return = {"server": {"reconnects_per_second": 20}, "websocket": {"max_connections": 100}}
    followers = [Follower(f"acme/s-{number}") for number in range(10)]
    ports = [free_port(), free_port()]
    addresses = [Address(port) for port in ports]
    taken: dict[str, str] = {}
    wrong: list[object] = []

    async def keep_sending() -> None:
        for number in range(1_000_000):
            key, session = f"{KEY}-{number}", f"acme/s-{number % 10}"
            while key not in taken:
                for address in addresses:
                    try:
                        answer = await address.send(session, key=key, if_busy="parallel")
                    except ConnectionRefusedError:
                        continue
                    except Exception as error:  # noqa: BLE001  # nothing else may happen
                        wrong.append(error)
                        continue
                    if answer.status == 202:
                        taken[key] = answer.json["task_id"]
                        break
                    if (answer.status, answer.code) != (503, "draining"):
                        wrong.append(answer)
                await asyncio.sleep(0.05)

    async with FakeExecutor(redis_server.url, prefix) as executor, contextlib.AsyncExitStack() as s:

        async def start(number: int) -> RunningProcess:
            settings: Any = {
                **slow_return,
                "server": {**slow_return["server"], "port": ports[number]},
            }
            process = process_service(redis_server.url, prefix, **settings)
            return await s.enter_async_context(process)

        running = [await start(0), await start(1)]
        async with answering(executor, "x"):
            for follower in followers:
                await s.enter_async_context(follower.following(*addresses))
            sending = asyncio.create_task(keep_sending())
            for number in (0, 1):
                draining = running[number]
                draining.send_signal(signal.SIGTERM)
                await eventually(partial(_is_unready, draining))
                assert await draining.exited(within=20) == 0
                await start(number)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            for task_id in taken.values():
                assert (await addresses[1].task_ended(task_id))["status"] == "completed"
            for number, follower in enumerate(followers):
                mine = sum(int(key.rpartition("-")[2]) % 10 == number for key in taken)
                await follower.ended(mine)
        codes = {code for follower in followers for code in follower.closes}
    assert wrong == []
    assert len(taken) > 10
    goodbyes = [each for f in followers for each in f.other if each["type"] == "reconnect"]
    assert len(goodbyes) >= 10
    assert {each["data"]["after_ms"] % 50 for each in goodbyes} == {0}  # twenty a second
    assert max(each["data"]["after_ms"] for each in goodbyes) >= 500  # ten of them at the least
    assert codes == {1012}


async def _is_unready(address: Address) -> bool:
    try:
        return (await address.get("/health/ready")).status == 503
    except ConnectionRefusedError:
        return True


# P8


async def test_a_second_sigterm_changes_nothing(redis_server: RedisServer, prefix: str) -> None:
    async with (
        process_service(redis_server.url, prefix) as service,
        service.connect() as socket,
    ):
        await next_frame(socket)
        service.send_signal(signal.SIGTERM)
        service.send_signal(signal.SIGTERM)
        assert await close_code(socket) == 1012
        service.send_signal(signal.SIGTERM)
        assert await service.exited() == 0
        assert "Traceback" not in service.log


async def test_sigterm_during_the_start_ends_it(redis_server: RedisServer, prefix: str) -> None:
    for after in (0.0, 0.3, 0.5, 0.7, 0.9):
        async with process_service(redis_server.url, prefix, is_ready=False) as service:
            await asyncio.sleep(after)
            service.send_signal(signal.SIGTERM)
            assert await service.exited() in {0, -signal.SIGTERM}
            assert "Traceback" not in service.log


async def test_sigterm_while_redis_is_down_ends_in_time(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            process_service(server.url, prefix, server={"drain_seconds": 10}) as service,
            service.connect() as socket,
        ):
            await next_frame(socket)
            await asyncio.to_thread(server.kill)
            service.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            assert await close_code(socket) == 1012
            assert await service.exited() == 0
            assert time.monotonic() - asked < 10 + 2


async def test_one_that_never_found_its_redis_ends_when_asked(prefix: str) -> None:
    address = f"redis://127.0.0.1:{free_port()}/0"
    async with process_service(address, prefix, is_ready=False) as service:
        await eventually(lambda: "redis.awaited" in service.log)
        assert (await service.get("/health")).status == 200
        assert (await service.get("/health/ready")).status == 503
        service.send_signal(signal.SIGTERM)
        assert await service.exited() == 0


# P10


async def test_a_loop_that_stands_still_for_seconds_loses_nobody(
    redis_server: RedisServer, prefix: str
) -> None:
    follower = Follower()
    async with (
        process_service(
            *(redis_server.url, prefix),
            environ={"FAILPOINTS": "http.before_202=sleep:3"},
            websocket={"ping_interval": 1, "ping_timeout": 1},
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


# Who is alive


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


async def test_redis_is_left_clean_when_an_instance_has_gone(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix),
        FakeExecutor(redis_server.url, prefix) as executor,
        process_service(redis_server.url, prefix) as service,
    ):
        name = await instance_id(service)
        await service.send()
        task = await executor.take()
        await executor.stream_answer(task, *"abc")
        service.send_signal(signal.SIGTERM)
        assert await service.exited() == 0
        stream = task.action["callback_stream"]
        (group,) = await executor.redis.xinfo_groups(stream)
        consumers = await executor.redis.xinfo_consumers(stream, group["name"])
        assert name not in {each["name"].decode() for each in consumers}
