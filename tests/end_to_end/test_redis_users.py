"""With no more rights in Redis than `config/redis/users.conf` gives, everything works."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from tests.execution.support import Process
from tests.support.client import frames_until, next_frame, say
from tests.support.processes import PROJECT
from tests.support.redis_server import RedisServer
from tests.support.redis_users import PREFIX, GuardedRedis, guarded_redis, permitted
from tests.support.service import RunningProcess, process_service

QUEUES = PROJECT / "common" / "queues"
FAST: dict[str, Any] = {
    "execution": {"visibility_timeout": 1, "retry_backoff": 0.1, "cancel_grace": 1},
    "callbacks": {"poll_seconds": 0.05, "claim_idle": 0.5, "gap_timeout": 2},
    "tiers": {
        "small": {
            "requests_per_minute": 1000,
            "requests_per_hour": 1000,
            "tokens_per_day": 100000,
            "max_queued": 50,
            "max_running": 1,
            "max_connections": 5,
        }
    },
    "tenants": {"small": {"tier": "small"}},
}
# What redis-py says by itself when it connects, and what nothing but `/health/detailed` asks.
OF_CONNECTIONS = {"select", "client|setname"}
CONTAINERS = {"client", "script", "xgroup", "xinfo"}
IN_LUA = re.compile(r"redis\.p?call\(\s*[\"']([A-Z]+)[\"'](?:\s*,\s*[\"']([A-Z]+)[\"'])?")
IN_PYTHON = re.compile(r"\(\s*\"([A-Z]{3,})\"(?:,\s*\"([A-Z]+)\")?")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedRedis]:
    with guarded_redis(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def worker(guarded: GuardedRedis) -> AsyncIterator[Process]:
    process = await Process.start(
        environ={"EXECUTION_REDIS_URL": guarded.url("worker"), "EXECUTION_KEY_PREFIX": PREFIX}
    )
    try:
        yield process
    finally:
        await process.kill()


@contextlib.asynccontextmanager
async def orchestrator(guarded: GuardedRedis) -> AsyncIterator[RunningProcess]:
    async with process_service(guarded.url("orchestrator"), PREFIX, **FAST) as running:
        yield running
        assert "redis.right_missing" not in running.log
        assert "NoPermission" not in running.log


# What the file has to name, found in the code


def commands_of(files: list[Path], pattern: re.Pattern[str]) -> set[str]:
    """Commands as a user's line spells them."""
    found = [each for file in files for each in pattern.findall(file.read_text())]
    return {
        f"{word}|{second}".lower() if word.lower() in CONTAINERS else word.lower()
        for word, second in found
    }


def known_commands(url: str) -> set[str]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return {str(name).lower() for name in client.command()}


def test_each_user_may_do_what_its_code_does_and_nothing_else(redis_server: RedisServer) -> None:
    known = known_commands(redis_server.url)
    lua = set((QUEUES / "lua").glob("*.lua"))
    of_worker = set((QUEUES / "lua").glob("work_*.lua"))
    consumer = set(QUEUES.glob("work_*.py"))
    python = {*QUEUES.glob("*.py")} - consumer - {QUEUES / "embedded.py"}
    code = {
        "orchestrator": commands_of([*(lua - of_worker)], IN_LUA)
        | commands_of([*python], IN_PYTHON),
        "worker": commands_of([*of_worker], IN_LUA) | commands_of([*consumer], IN_PYTHON),
    }
    code["worker"] |= {"subscribe"}  # by a method of redis-py
    code["orchestrator"] |= {"ping"}  # by the edge, for `/health/detailed`
    for user, found in code.items():
        needed = {each for each in found if each.partition("|")[0] in known} | OF_CONNECTIONS
        assert permitted(user) == needed, user


def test_no_user_may_change_redis_itself() -> None:
    for user in ("orchestrator", "worker"):
        names = {each.partition("|")[0] for each in permitted(user)}
        assert not names & {
            *("acl", "config", "debug", "shutdown", "flushall", "flushdb", "keys", "scan"),
            *("replicaof", "module", "monitor", "migrate", "restore", "swapdb", "save", "function"),
        }


# The whole of it, run


async def test_whole_flows_need_no_right_that_the_file_does_not_give(
    guarded: GuardedRedis,
) -> None:
    async with orchestrator(guarded) as first, orchestrator(guarded) as second:
        async with worker(guarded) as doomed:
            await message_is_streamed_and_resumed(first)
            await tasks_are_cancelled_and_tried_again(first)
            await turns_are_taken(first)
            await sessions_are_pushed_to(guarded, first)
            await letters_are_dead_and_requeued(guarded, first)
            await worker_dies_and_another_takes_over(guarded, second, doomed)
        async with worker(guarded):
            await instance_dies_and_another_takes_over(first, second)
            for path in ("/usage/acme", "/health/detailed", "/metrics", "/ws/stats", "/actors"):
                assert (await second.get(path)).status == 200, path
    assert guarded.refusals() == []


async def message_is_streamed_and_resumed(instance: RunningProcess) -> None:
    async with instance.connect("acme/one") as socket:
        ack = await next_frame(socket)
        await say(socket, "chat.send_message", id_="x" * 16, agent_id="echo", message="one two")
        last = (await frames_until(socket, "agent_response"))[-1]
    epoch = ack["data"]["epoch"]
    async with instance.connect("acme/one", epoch=epoch, offset=1, compact=1) as socket:
        assert (await next_frame(socket))["data"]["recovered"]
        assert (await frames_until(socket, "agent_response"))[-1] == last
    assert (await instance.send("acme/one", key="k")).status == 202
    assert (await instance.send("acme/one", key="k")).headers["Idempotent-Replayed"] == "true"


async def tasks_are_cancelled_and_tried_again(instance: RunningProcess) -> None:
    running = (await instance.send("acme/two", "hang", agent_id="faulty")).json["task_id"]
    waiting = (await instance.send("acme/two", "never run")).json["task_id"]
    async with asyncio.timeout(15):
        while (await instance.status(running))["status"] != "running":
            await asyncio.sleep(0.02)
    for task in (waiting, running):
        answer = await instance.post("/api/chat/cancel", {"tenant_id": "acme", "task_id": task})
        assert answer.status in {200, 202}
        assert (await instance.task_ended(task))["status"] == "cancelled"
    again = await instance.send("acme/two", "retryable", agent_id="faulty")
    assert (await instance.task_ended(again.json["task_id"]))["status"] == "failed"
    late = await instance.send("acme/two", "hang", agent_id="faulty", timeout=1)
    assert (await instance.task_ended(late.json["task_id"]))["status"] == "timeout"


async def turns_are_taken(instance: RunningProcess) -> None:
    """Three sessions of a tenant that may run one task at a time, under all its limits."""
    sent = [await instance.send(f"small/{number}") for number in range(3)]
    for answer in sent:
        task = await instance.task_ended(answer.json["task_id"], "small")
        assert task["status"] == "completed"


async def sessions_are_pushed_to(guarded: GuardedRedis, instance: RunningProcess) -> None:
    async with instance.connect("acme/three") as socket:
        await next_frame(socket)
        body = {"tenant_id": "acme", "message_data": {"a": 1}}
        sent = await instance.post("/api/ws/send", {**body, "session_id": "three"})
        assert sent.status == 202
        assert (await instance.post("/api/ws/broadcast", body)).status == 202
        await frames_until(socket, "broadcast")
        async with Redis.from_url(guarded.url("admin")) as backend:
            await backend.xadd(f"{PREFIX}actions", {"action": "not an action"})


async def letters_are_dead_and_requeued(guarded: GuardedRedis, instance: RunningProcess) -> None:
    async with asyncio.timeout(15):
        while not (letters := (await instance.get("/dead-letters/callbacks")).json["items"]):
            await asyncio.sleep(0.02)
    assert letters[0]["reason"] == "bad_action"
    path = f"/dead-letters/callbacks/{letters[0]['id']}"
    assert (await instance.request("DELETE", path)).status == 204
    async with Redis.from_url(guarded.url("admin")) as backend:
        stream = f"{PREFIX}callbacks:{{{PREFIX}dead:callbacks}}"
        await backend.xadd(stream, {"task_id": "t", "type": "unheard of"})
    async with asyncio.timeout(15):
        while not (letters := (await instance.get("/dead-letters/callbacks")).json["items"]):
            await asyncio.sleep(0.02)
    again = f"/dead-letters/callbacks/{letters[0]['id']}/requeue"
    assert (await instance.post(again, b"")).status == 202


async def worker_dies_and_another_takes_over(
    guarded: GuardedRedis, instance: RunningProcess, doomed: Process
) -> None:
    async with instance.connect("acme/four") as socket:
        sent = await instance.send("acme/four", "a b c d e f", context={"delay_ms": 300})
        await frames_until(socket, "agent_delta")
        await doomed.kill()
        async with worker(guarded):
            frames = await frames_until(socket, "agent_response")
    assert any(frame["data"].get("reset") for frame in frames)
    assert (await instance.task_ended(sent.json["task_id"]))["attempt"] == 2


async def instance_dies_and_another_takes_over(
    first: RunningProcess, second: RunningProcess
) -> None:
    async with second.connect("acme/five") as socket:
        await next_frame(socket)
        sent = await first.send("acme/five", "a b c d e f", context={"delay_ms": 200})
        await frames_until(socket, "agent_delta")
        await first.kill()
        await frames_until(socket, "agent_response")
    assert (await second.task_ended(sent.json["task_id"]))["status"] == "completed"
    async with asyncio.timeout(20):
        while (await second.get("/ws/stats")).json["cluster"]["instances"] != 1:
            await asyncio.sleep(0.1)


# What it refuses


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("orchestrator", ("CONFIG", "GET", "*")),
        ("orchestrator", ("FLUSHALL",)),
        ("orchestrator", ("KEYS", "*")),
        ("orchestrator", ("SCRIPT", "FLUSH")),
        ("orchestrator", ("GET", "other:key")),
        ("orchestrator", ("PUBLISH", "other", "x")),
        ("worker", ("CONFIG", "GET", "*")),
        ("worker", ("CLIENT", "KILL", "TYPE", "normal")),
        ("worker", ("GET", "orchestrator:session:{acme:one}:meta")),
        ("worker", ("XRANGE", "orchestrator:dead:callbacks", "-", "+")),
        ("worker", ("SUBSCRIBE", "orchestrator:session:{acme:one}:events")),
        ("worker", ("PUBLISH", "orchestrator:control", "{}")),
        ("worker", ("EVAL", "return redis.call('GET', 'orchestrator:due:0')", "0")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[:40],
)
def test_what_is_not_in_the_file_is_refused(
    guarded: GuardedRedis, user: str, command: tuple[str, ...]
) -> None:
    with redis.Redis.from_url(guarded.url(user), protocol=2) as client:
        with pytest.raises(redis.ResponseError, match=r"permission|can't|ACL failure"):
            client.execute_command(*command)
        assert guarded.refusals()


def test_whoever_names_no_user_may_do_nothing(guarded: GuardedRedis) -> None:
    with (
        redis.Redis.from_url(guarded.server.url) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
