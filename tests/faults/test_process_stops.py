"""Instances that are asked to stop (FAULTS, c1)."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from tornado.simple_httpclient import HTTPStreamClosedError

from tests.faults.in_hand import instance_id
from tests.support.client import Address, close_code, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import Follower, answering, eventually
from tests.support.redis_server import RedisServer, free_port
from tests.support.service import RunningProcess, process_service, running_service

KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"
DOOR_CLOSED = (ConnectionError, HTTPStreamClosedError)  # before a request was read, that is


# P7


class Sender:
    """Sends message after message, each until one of the instances has taken it."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.taken: dict[str, str] = {}  # tasks by the keys of their messages
        self.wrong: list[object] = []
        self._addresses = addresses
        self._unanswered: set[str] = set()

    async def keep_sending(self) -> None:
        for number in itertools.count():
            key, session = f"{KEY}-{number}", f"acme/s-{number % 10}"
            while key not in self.taken:
                for address in self._addresses:
                    if await self._send(address, session, key):
                        break
                await asyncio.sleep(0.05)

    async def _send(self, address: Address, session: str, key: str) -> bool:
        """Whether it was taken. It may be refused, or come as the door closes: nothing else."""
        try:
            answer = await address.send(session, key=key, if_busy="parallel")
        except DOOR_CLOSED:
            self._unanswered.add(key)
            return False
        except Exception as error:  # noqa: BLE001
            self.wrong.append(error)
            return False
        if answer.status == 202:
            if key in self._unanswered and "Idempotent-Replayed" in answer.headers:
                self.wrong.append(f"{key} was taken, and its answer cut off")
            self.taken[key] = answer.json["task_id"]
        elif (answer.status, answer.code) != (503, "draining"):
            self.wrong.append(answer)
        return answer.status == 202


async def test_rolling_restarts_lose_no_message_and_spread_their_clients(
    redis_server: RedisServer, prefix: str
) -> None:
    slow_return = {"server": {"reconnects_per_second": 20}, "websocket": {"max_connections": 100}}
    followers = [Follower(f"acme/s-{number}") for number in range(10)]
    ports = [free_port(), free_port()]
    addresses = [Address(port) for port in ports]
    sender = Sender(addresses)

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
            sending = asyncio.create_task(sender.keep_sending())
            for number in (0, 1):
                draining = running[number]
                draining.send_signal(signal.SIGTERM)
                await eventually(partial(_is_unready, draining))
                assert await draining.exited(within=20) == 0
                await start(number)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            for task_id in sender.taken.values():
                assert (await addresses[1].task_ended(task_id))["status"] == "completed"
            for number, follower in enumerate(followers):
                mine = sum(int(key.rpartition("-")[2]) % 10 == number for key in sender.taken)
                await follower.ended(mine)
        codes = {code for follower in followers for code in follower.closes}
    assert sender.wrong == []
    assert len(sender.taken) > 10
    goodbyes = [each for f in followers for each in f.other if each["type"] == "reconnect"]
    assert len(goodbyes) >= 10
    assert {each["data"]["after_ms"] % 50 for each in goodbyes} == {0}  # twenty a second
    assert max(each["data"]["after_ms"] for each in goodbyes) >= 500  # ten of them at the least
    assert codes == {1012}


async def _is_unready(address: Address) -> bool:
    try:
        return (await address.get("/health/ready")).status == 503
    except DOOR_CLOSED:
        return True


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
        with contextlib.suppress(ProcessLookupError):  # it may have ended by now
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
