"""A loop that stands still is seen, said, counted, and gets no new traffic for a while."""

import asyncio
import os
import signal
import time
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from orchestrator.loop_watch import EVERY, UNREADY_FOR, LoopWatch
from tests.support.client import Address
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.service import process_service

STALL = 1.2  # seconds


async def watched(*stalls: float) -> LoopWatch:
    """A watch after these stalls of its loop."""
    watch = LoopWatch()
    watch.start()
    for stall in stalls:
        await stalled(watch, stall)
    watch.stop()
    return watch


async def stalled(watch: LoopWatch, seconds: float) -> None:
    await looked(watch)
    block(seconds)
    await looked(watch)


def block(seconds: float) -> None:
    time.sleep(seconds)


async def looked(watch: LoopWatch) -> None:
    seen = sum(watch.counts)
    while sum(watch.counts) == seen:
        await asyncio.sleep(EVERY / 4)


async def test_a_stall_is_measured_to_within_one_look() -> None:
    watch = await watched(0.3)
    assert watch.longest >= 0.3 - EVERY
    assert watch.total >= watch.longest
    assert sum(watch.counts[5:]) >= 1  # above a quarter of a second; a busy machine adds its own


def test_a_stall_is_counted_once_among_those_of_its_length() -> None:
    watch = LoopWatch()
    for late in (0.0, 0.02, 0.3, 6.0):
        watch._record(late, busy=0.0, now=1000.0)
    assert watch.counts == [1, 1, 0, 0, 0, 1, 0, 1]
    assert (watch.longest, watch.total) == (6.0, 6.32)


async def test_time_spent_waiting_is_told_from_time_spent_working() -> None:
    assert (await watched(0.3)).busiest < 0.1
    watch = LoopWatch()
    watch.start()
    await looked(watch)
    began = time.thread_time()
    while time.thread_time() - began < 0.2:
        pass
    await looked(watch)
    watch.stop()
    assert watch.busiest >= 0.2 - EVERY


async def test_a_watch_that_was_stopped_looks_no_more() -> None:
    watch = await watched()
    await asyncio.sleep(3 * EVERY)
    assert sum(watch.counts) == 0


async def test_a_stall_is_logged_with_its_length() -> None:
    with capture_logs() as lines:
        await watched(0.15)
    assert {line["event"] for line in lines} == {"loop.stalled"}
    assert max(line["ms"] for line in lines) >= 130


def test_a_short_stall_is_in_the_metrics_only() -> None:
    watch = LoopWatch()
    with capture_logs() as lines:
        watch._record(0.15, busy=0.1, now=1000.0)
        watch._record(0.09, busy=0.09, now=1001.0)
    assert lines == [
        {"event": "loop.stalled", "log_level": "warning", "ms": 150, "cpu_ms": 100},
    ]


async def test_a_long_stall_shakes_the_watch() -> None:
    assert (await watched(1.1)).is_shaken


@pytest.mark.parametrize(("late", "is_shaken"), [(0.99, False), (1.0, True)])
def test_only_a_long_stall_shakes_it_and_only_for_a_while(late: float, is_shaken: bool) -> None:
    watch = LoopWatch()
    now = time.monotonic()
    watch._record(late, busy=0.0, now=now)
    assert watch.is_shaken is is_shaken
    watch._record(late, busy=0.0, now=now - UNREADY_FOR)
    assert not watch.is_shaken


async def test_an_instance_that_stood_still_says_so_and_is_not_ready_for_a_while(
    redis_server: RedisServer, prefix: str
) -> None:
    faults = {"FAILPOINTS": f"http.before_202=sleep:{STALL}"}
    async with process_service(redis_server.url, prefix, environ=faults) as service:
        assert (await service.send()).status == 202
        refused = await service.get("/health/ready")
        assert (refused.status, refused.code) == (503, "overloaded")
        assert (await service.get("/health")).status == 200
        assert (await samples(service))["orchestrator_loop_lag_max_seconds"] >= STALL - 0.05
        stalls = [each for each in lines_of(service.log) if each["event"] == "loop.stalled"]
        line = max(stalls, key=lambda each: float(each["ms"]))  # a busy start may be another
        assert line["ms"] >= (STALL - 0.05) * 1000
        assert line["cpu_ms"] < 500
        await service.ready()


async def test_a_frozen_process_has_stood_still(redis_server: RedisServer, prefix: str) -> None:
    async with process_service(redis_server.url, prefix) as service:
        before = (await samples(service))["orchestrator_loop_lag_seconds_count"]
        os.kill(service.pid, signal.SIGSTOP)
        await asyncio.sleep(STALL)  # the time is the point
        os.kill(service.pid, signal.SIGCONT)
        await eventually(lambda: is_unready(service))
        after = await samples(service)
        assert after["orchestrator_loop_lag_max_seconds"] >= STALL - 0.1
        assert after["orchestrator_loop_lag_seconds_count"] > before
        await service.ready()


async def is_unready(service: Address) -> bool:
    return (await service.get("/health/ready")).status == 503


async def samples(service: Address) -> dict[str, float]:
    text = (await service.get("/metrics")).body.decode()
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def lines_of(log: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.splitlines() if line.startswith("{")]
