"""The figures of speed and memory that are promised, measured; the end of a run tells them."""

import asyncio
import statistics
import time
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests.support.fake_executor import FakeExecutor
from tests.support.figures import measured
from tests.support.raw import raw_socket
from tests.support.redis_server import RedisServer
from tests.support.service import process_service
from tests.support.stores import Stores, callback_fields, key_of, stores

pytestmark = pytest.mark.alone

SESSIONS, CALLBACKS = 20, 25


async def calls(client: Any, *names: str) -> dict[str, int]:
    """How often Redis was sent each of these commands since its counters were reset."""
    stats = await client.info("commandstats")
    return {name: int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names}


async def add_deltas(opened: Stores, tasks: dict[int, Any], first_seq: int) -> None:
    for seq in range(first_seq, first_seq + CALLBACKS):
        for number, task_id in tasks.items():
            session = key_of(f"s-{number}")
            data = {"text": f"{seq} "}
            await opened.add(callback_fields(task_id, 1, seq, "delta", data, session))


async def test_a_batch_of_callbacks_costs_one_script_a_session(prefix: str) -> None:
    with RedisServer() as server:
        async with stores(server.url, prefix) as opened, Redis.from_url(server.url) as client:
            tasks = {n: await opened.submit_and_deliver(key_of(f"s-{n}")) for n in range(SESSIONS)}
            await add_deltas(opened, tasks, 1)
            await opened.handle()  # scripts are loaded, tasks run
            await add_deltas(opened, tasks, 1 + CALLBACKS)
            entries = await opened.read()
            assert len(entries) == SESSIONS * CALLBACKS
            await client.config_resetstat()
            await opened.callbacks.apply(entries)
            sent = await calls(client, "evalsha", "eval", "xack", "xdel")
            measured("scripts for 500 callbacks of 20 sessions", sent["evalsha"], "calls")
            assert sent == {"evalsha": SESSIONS, "eval": 0, "xack": 1, "xdel": 1}


async def test_a_thousand_events_are_resumed_within_a_tenth_of_a_second(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        process_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        await service.send()
        task = await executor.take()
        await executor.stream_answer(task, *(f"word {number}" for number in range(997)))
        await executor.complete(task)
        await service.task_ended(task.task_id)
        assert (await service.events())["last_offset"] == 1000
        await resume(service.port)
        took = [await resume(service.port) for _ in range(10)]
        measured("a resume of 1000 events, best of ten", min(took) * 1000, "ms")
        measured("the same, median", statistics.median(took) * 1000, "ms")
        # The best of ten: others may use this machine, too.
        assert min(took) < 0.1


async def resume(port: int) -> float:
    """Seconds from the first packet of the handshake to the thousandth event."""
    begun = time.monotonic()
    async with raw_socket(port) as raw:
        assert (await raw.upgrade("/ws/acme/s-1?offset=0")).status == 101
        ack = orjson.loads((await raw.frame()).payload)
        assert ack["data"]["replayed"] == 1000
        payload = b""
        async with asyncio.timeout(10):
            for _ in range(1000):
                payload = (await raw.frame()).payload
        took = time.monotonic() - begun
        assert orjson.loads(payload)["offset"] == 1000
    return took


async def test_the_log_of_an_answer_of_a_thousand_deltas_stays_small(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        stores(redis_server.url, prefix) as opened,
        Redis.from_url(redis_server.url) as redis,
    ):
        task_id = await opened.submit_and_deliver()
        words = [f"{number} tokens " for number in range(1000)]
        reports: list[tuple[int, int, str, Any]] = [(1, 1, "started", {})]
        reports += [(1, 2 + i, "delta", {"text": word}) for i, word in enumerate(words)]
        reports.append((1, 1002, "completed", {"response": "".join(words)}))
        await opened.report(task_id, *reports)
        assert (await opened.events())[-1]["type"] == "agent_response"
        client: Any = redis
        log = await client.memory_usage(opened.keys.session_log(key_of("s-1")), samples=0)
        everything = 0
        async for key in client.scan_iter(f"{prefix}*acme:s-1*"):
            everything += await client.memory_usage(key, samples=0)
        measured("the log of an answer of 1000 deltas", log / 1024, "KiB")
        measured("all that is kept of its session", everything / 1024, "KiB")
        assert log < 300_000
        assert everything < 300_000
