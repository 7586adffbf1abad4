"""A Redis that dies, forgets, refuses, stalls or is full (FAULTS, c2)."""

import asyncio
import contextlib
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection

from tests.support.figures import measured
from tests.support.follower import Follower, answering, eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import (
    Address,
    FakeExecutor,
    close_code,
    frames_until,
    next_frame,
    process_service,
    running_service,
    say,
)

REFUSED_WITHIN = 3.0  # seconds: section 6 of the contract
BACK_WITHIN = 5.0
KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"
OURS = "agent-orchestrator"  # what our connections are called in Redis


async def is_refused(service: Address, code: str = "redis_unavailable") -> None:
    asked = time.monotonic()
    answer = await service.send(key=KEY)
    assert time.monotonic() - asked < REFUSED_WITHIN
    assert (answer.status, answer.code) == (503, code)
    assert int(answer.headers["Retry-After"]) >= 1


async def is_alive(socket: ClientConnection) -> None:
    await say(socket, "ping", "p-1")
    await frames_until(socket, "pong")


async def goes_on(
    service: Address, executor: FakeExecutor, socket: ClientConnection, within: float = BACK_WITHIN
) -> float:
    """Everything works again: a message is taken, run, and told on the old connection."""
    begun = time.monotonic()
    async with asyncio.timeout(within + 10):
        while (answer := await service.send(key=KEY)).status != 202:
            await asyncio.sleep(0.05)
        while (task := await executor.take()).task_id != answer.json["task_id"]:
            pass
        await executor.stream_answer(task, "back")
        await executor.complete(task, "back")
        while (await frames_until(socket, "agent_response"))[-1]["task_id"] != task.task_id:
            pass
    took = time.monotonic() - begun
    assert took < within
    return took


async def command(client: Any, *words: str | int) -> Any:
    return await client.execute_command(*words)


async def restarts(service: Address) -> int:
    answer = await service.get("/health/detailed")
    count: int = answer.json["components"]["actors"]["restarts"]
    return count


# R1, R2, R3: gone and back


async def test_redis_is_killed_and_started_again_and_nothing_but_time_is_lost(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
            service.connect() as socket,
        ):
            first = (await service.send()).json["task_id"]
            task = await executor.take()
            await executor.stream_answer(task, "half ")
            await frames_until(socket, "agent_delta")
            await asyncio.to_thread(server.kill)
            for _ in range(3):
                await is_refused(service)
            assert (await service.get("/health")).status == 200
            ready = await service.get("/health/ready")
            assert (ready.status, ready.code) == (503, "redis_unavailable")
            await is_alive(socket)
            await asyncio.to_thread(server.restart)
            back = time.monotonic()
            await executor.report(task, "delta", {"text": "an answer"})
            await executor.complete(task, "half an answer")
            frames = await frames_until(socket, "agent_response")
            measured("an answer goes on after a restart of Redis", time.monotonic() - back, "s")
            assert time.monotonic() - back < BACK_WITHIN
            assert frames[-1]["task_id"] == first
            await goes_on(service, executor, socket)
            assert await restarts(service) == 0


@contextlib.asynccontextmanager
async def forgetful(how: str) -> AsyncIterator[tuple[RedisServer, Callable[[], Awaitable[Any]]]]:
    """A Redis, and what makes it forget everything."""
    with RedisServer(*(("--appendonly", "no") if how == "restart" else ())) as server:

        async def restart() -> None:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)

        async with Redis.from_url(server.url) as client:
            yield server, restart if how == "restart" else client.flushall


@pytest.mark.parametrize("how", ["flush", "restart"])
async def test_a_redis_that_forgot_everything_begins_anew_and_says_so(
    how: str, prefix: str
) -> None:
    async with (
        forgetful(how) as (server, forget),
        running_service(server.url, prefix) as service,
        FakeExecutor(server.url, prefix) as executor,
    ):
        async with service.connect() as socket:
            epoch = (await next_frame(socket))["data"]["epoch"]
            lost = (await service.send()).json["task_id"]
            task = await executor.take()
            await executor.stream_answer(task, "a", "b")
            await frames_until(socket, "agent_delta")
            await forget()
            await executor.report(task, "delta", {"text": "late"})  # before any group is made
            async with asyncio.timeout(BACK_WITHIN):
                while (answer := await service.send(key=KEY)).status != 202:
                    await asyncio.sleep(0.05)
            assert await close_code(socket) == 4410
        async with service.connect(epoch=epoch, offset=4) as socket:
            data = (await next_frame(socket))["data"]
            assert data["recovered"] is False
            assert data["epoch"] != epoch
            task = await executor.take()
            assert task.task_id == answer.json["task_id"]
            await executor.complete(task)
            await frames_until(socket, "agent_response")
        gone = await service.post("/api/chat/status", {"tenant_id": "acme", "task_id": lost})
        assert (gone.status, gone.code) == (404, "task_not_found")
        assert (await service.events())["events"][0]["offset"] == 1
        await eventually(lambda: _nothing_waits(executor, task.action["callback_stream"]))
        assert await restarts(service) == 0


async def _nothing_waits(executor: FakeExecutor, stream: str) -> bool:
    return int(await executor.redis.xlen(stream)) == 0


# R4: out of reach


async def test_ten_seconds_out_of_reach_are_refused_in_time_and_end_by_themselves(
    redis_server: RedisServer, prefix: str
) -> None:
    """Refused, reset again and again, and in silence: all three at once, an instance each."""
    outages = [_outage(redis_server, f"{prefix}{how}:", how) for how in ("refuse", "cut", "hole")]
    for took in await asyncio.gather(*outages):
        measured("a message goes through after ten seconds without Redis", took, "s")


async def _outage(server: RedisServer, prefix: str, how: str) -> float:
    async with (
        Proxy(server.port) as proxy,
        running_service(proxy.url, prefix) as service,
        FakeExecutor(server.url, prefix) as executor,
        service.connect() as socket,
    ):
        await next_frame(socket)
        until = time.monotonic() + 10
        if how == "refuse":
            await proxy.refuse()
        elif how == "hole":
            proxy.blackhole()
        while time.monotonic() < until:
            if how == "cut":
                proxy.cut_replies = 1_000_000
            await is_refused(service)
            await is_alive(socket)
            await asyncio.sleep(0.5)
        proxy.cut_replies = 0
        await proxy.heal()
        return await goes_on(service, executor, socket)


# R6: a lost reply


async def test_a_message_whose_replies_are_lost_is_refused_or_taken_and_never_doubled(
    redis_server: RedisServer, prefix: str
) -> None:
    """Wherever the cut falls: in a read, a hint, a sweep or the message's own steps."""
    async with (
        Proxy(redis_server.port) as proxy,
        running_service(proxy.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        follower = Follower()
        async with follower.following(service), answering(executor, "x", "y"):
            for number in range(15):
                proxy.cut_replies = 1 + number % 3
                async with asyncio.timeout(10):
                    while (await service.send(key=f"{KEY}{number}")).status != 202:
                        await asyncio.sleep(0.1)
            await follower.ended(15, within=30)
    assert follower.types.count("user_message") == 15
    assert follower.types.count("agent_response") == 15
    assert follower.text == "xy" * 15


# R7: slow


async def test_a_slow_redis_is_slow_and_no_more(redis_server: RedisServer, prefix: str) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        running_service(proxy.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        follower = Follower()
        async with follower.following(service), answering(executor, "a", "b"):
            proxy.latency = 0.2
            answers = await asyncio.gather(
                *(service.send(key=f"{KEY}{n}", if_busy="parallel") for n in range(3))
            )
            assert {answer.status for answer in answers} == {202}
            await follower.ended(3, within=30)
            proxy.latency = 0
    assert sorted(follower.text) == sorted("ab" * 3)
    assert set(follower.closes) <= {None}


# R8, R10, R14: Redis refuses


async def test_a_redis_without_memory_means_overloaded_until_it_has_some(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
            Redis.from_url(server.url) as client,
            service.connect() as socket,
        ):
            await service.send()
            task = await executor.take()
            await executor.stream_answer(task, "a")
            await frames_until(socket, "agent_delta")
            await executor.report(task, "completed", {"response": "a"})
            await client.config_set("maxmemory", 1)
            await is_refused(service, "overloaded")
            await is_alive(socket)
            await client.config_set("maxmemory", 0)
            await goes_on(service, executor, socket)


@contextlib.asynccontextmanager
async def demoted(client: Any) -> AsyncIterator[None]:
    await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    await client.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def without_replicas(client: Any) -> AsyncIterator[None]:
    await client.config_set("min-replicas-to-write", 1)
    yield
    await client.config_set("min-replicas-to-write", 0)


@contextlib.asynccontextmanager
async def unable_to_save(client: Any) -> AsyncIterator[None]:
    """Its files may not grow, as on a full disk, and no append-only file makes up for that."""
    pid = (await client.info("server"))["process_id"]
    await client.config_set("appendonly", "no")
    await client.config_set("save", "3600 1")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, -1))
    await client.bgsave()
    async with asyncio.timeout(10):
        while (await client.info("persistence"))["rdb_last_bgsave_status"] != "err":
            await asyncio.sleep(0.02)
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (-1, -1))
    await client.config_set("save", "")


@pytest.mark.parametrize("refusing", [demoted, without_replicas, unable_to_save])
async def test_a_redis_that_takes_no_writes_means_unavailable_until_it_does(
    prefix: str, refusing: Callable[[Any], contextlib.AbstractAsyncContextManager[None]]
) -> None:
    """READONLY, NOREPLICAS and MISCONF."""
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
            Redis.from_url(server.url, decode_responses=True) as client,
            service.connect() as socket,
        ):
            await next_frame(socket)
            async with refusing(client):
                await is_refused(service)
                await is_alive(socket)
            await goes_on(service, executor, socket)
            assert await restarts(service) == 0


async def test_a_redis_that_still_loads_means_unavailable_until_it_has(prefix: str) -> None:
    slow = ("--key-load-delay", "300", "--aof-use-rdb-preamble", "no")
    with RedisServer(*slow) as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
            Redis.from_url(server.url) as client,
            service.connect() as socket,
        ):
            await next_frame(socket)
            for _ in range(10):
                pipeline = client.pipeline(transaction=False)
                for number in range(1000):
                    pipeline.set("filler", number)
                await pipeline.execute()
            await asyncio.to_thread(server.kill)
            starting = asyncio.create_task(asyncio.to_thread(server.restart))
            await eventually(lambda: _says_loading(client))
            await is_refused(service)
            assert not starting.done()
            await starting
            await goes_on(service, executor, socket)


async def _says_loading(client: Any) -> bool:
    try:
        await client.ping()
    except RedisError as error:
        return "loading" in str(error).lower()
    return False


async def test_a_full_disk_means_unavailable_until_there_is_room(prefix: str) -> None:
    """A limit on the size of its files stands for the disk: Redis cannot tell them apart."""
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
            Redis.from_url(server.url) as client,
            service.connect() as socket,
        ):
            await next_frame(socket)
            size = int((await client.info("persistence"))["aof_current_size"])
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size + 20_000, -1))
            await client.set("filler", b"x" * 40_000)
            await eventually(lambda: _cannot_write(client))
            await is_refused(service)
            await is_alive(socket)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (-1, -1))
            await goes_on(service, executor, socket)


async def _cannot_write(client: Any) -> bool:
    return str((await client.info("persistence"))["aof_last_write_status"]) == "err"


# R9, R22: wrong from the start


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_redis_that_may_drop_keys_is_refused_at_the_start_in_one_clear_line(
    policy: str, prefix: str
) -> None:
    with RedisServer("--maxmemory-policy", policy) as server:
        async with process_service(server.url, prefix, is_ready=False) as service:
            assert await service.exited() == 1
            lines = [line for line in service.log.splitlines() if policy in line]
            assert len(lines) == 1
            line = orjson.loads(lines[0])
            assert line["level"] == "critical"
            assert "set it to noeviction" in line["reason"]


async def test_a_wrong_password_is_never_ready_and_never_shown(prefix: str) -> None:
    with RedisServer() as server:
        async with Redis.from_url(server.url) as client:
            await client.config_set("requirepass", "the-right-one")
        url = server.url.replace("redis://", "redis://:not-the-right-one@")
        async with process_service(url, prefix, is_ready=False) as service:
            await eventually(lambda: "redis.awaited" in service.log)
            assert (await service.get("/health/ready")).status == 503
            assert "not-the-right-one" not in service.log
        async with Redis.from_url(server.url, password="the-right-one") as client:
            await client.config_set("requirepass", "")


# R11, R12, R15: what a failover or a damaged file loses


@contextlib.asynccontextmanager
async def replicated() -> AsyncIterator[tuple[RedisServer, RedisServer, Proxy, Proxy]]:
    """A master, its replica in step with it, the link between them, and the way of clients."""
    with RedisServer() as master, RedisServer() as replica:
        async with Proxy(master.port) as link, Proxy(master.port) as way:
            port = link.url.rpartition(":")[2].partition("/")[0]
            async with Redis.from_url(replica.url) as client:
                await command(client, "REPLICAOF", "127.0.0.1", port)
            async with Redis.from_url(master.url) as client:
                await eventually(lambda: _is_online(client))
            yield master, replica, link, way


async def _is_online(client: Any) -> bool:
    replica = (await client.info("replication")).get("slave0")
    return replica is not None and replica["state"] == "online"


async def _fail_over(master: RedisServer, replica: RedisServer, way: Proxy) -> None:
    await asyncio.to_thread(master.kill)
    async with Redis.from_url(replica.url) as client:
        await command(client, "REPLICAOF", "NO", "ONE")
    way.lead_to(replica.port)


async def test_a_failover_to_a_replica_in_step_loses_nothing(prefix: str) -> None:
    async with (
        replicated() as (master, replica, _, way),
        running_service(way.url, prefix) as service,
    ):
        follower = Follower()
        async with follower.following(service), FakeExecutor(way.url, prefix) as executor:
            await service.send()
            task = await executor.take()
            await executor.stream_answer(task, "half ")
            await follower.until(lambda: follower.text == "half ")
            async with Redis.from_url(master.url) as client:
                assert await command(client, "WAIT", 1, 5000) == 1
            await _fail_over(master, replica, way)
            await executor.report(task, "delta", {"text": "whole"})
            await executor.complete(task, "half whole")
            await follower.ended()
            assert follower.text == "half whole"


async def test_what_a_failover_lost_is_told_to_those_who_had_seen_it(prefix: str) -> None:
    """The link to the replica falls silent first, so that the newest events are on one side."""
    async with (
        replicated() as (master, replica, link, way),
        running_service(way.url, prefix) as service,
    ):
        async with service.connect() as socket, service.connect("acme/away", offset=0) as away:
            epoch = (await next_frame(socket))["data"]["epoch"]
            await next_frame(away)
            async with Redis.from_url(master.url) as client:
                assert await command(client, "WAIT", 1, 5000) == 1
            link.blackhole()
            for number in range(5):
                body = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"n": number}}
                assert (await service.post("/api/ws/send", body)).status == 202
            assert [(await next_frame(socket))["offset"] for _ in range(5)] == [1, 2, 3, 4, 5]
            await _fail_over(master, replica, way)
            assert await close_code(socket) == 4410
            await is_alive(away)  # who had seen nothing of it has lost nothing
        async with service.connect(epoch=epoch, offset=5) as socket:
            assert (await next_frame(socket))["data"]["recovered"] is False


def _append_only_file(folder: Path) -> Path:
    """The newest part of it: one file in Redis 6, a folder of them since 7."""
    return max(folder.rglob("*.aof"), key=lambda path: (path.name.count("incr"), path.name))


async def _damage(server: RedisServer, damage: Callable[[bytes], bytes]) -> None:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        folder = Path(str((await client.config_get("dir"))["dir"]))
    await asyncio.to_thread(server.kill)
    file = _append_only_file(folder)
    file.write_bytes(damage(file.read_bytes()))
    await asyncio.to_thread(server.restart)


async def test_a_file_that_lost_its_end_costs_what_stood_there(prefix: str) -> None:
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
        ):
            await service.send(key=KEY)
            await _damage(server, lambda data: data[:-7])
            async with service.connect(offset=0) as socket:
                await goes_on(service, executor, socket)
            events = (await service.events())["events"]
            assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
            assert await restarts(service) == 0


async def test_a_damaged_event_harms_only_who_reads_it(prefix: str) -> None:
    """Redis loads it unawares. Nothing of ours parses a stored event, so nothing falls over it."""
    with RedisServer() as server:
        async with (
            running_service(server.url, prefix) as service,
            FakeExecutor(server.url, prefix) as executor,
        ):
            body = {"tenant_id": "acme", "session_id": "s-9", "message_data": {"n": "needle"}}
            assert (await service.post("/api/ws/send", body)).status == 202
            await eventually(lambda: service.events("acme/s-9"))
            await _damage(server, lambda data: data.replace(b'"needle"', b'"nee"!!!'))
            async with service.connect("acme/s-1") as socket:
                await next_frame(socket)
                await goes_on(service, executor, socket)
            page = await service.get("/api/sessions/acme/s-9/events")
            assert b'"nee"!!!' in page.body
            assert await restarts(service) == 0


# R17, R18: disturbed again and again, under load


async def _flush_scripts(client: Any) -> None:
    await client.script_flush()
    await asyncio.sleep(0.1)


async def _kill_ours(client: Redis, kind: str) -> None:
    for each in await client.client_list(_type=kind):
        if each["name"] == OURS:
            await command(client, "CLIENT", "KILL", "ID", each["id"])
    await asyncio.sleep(0.5)


async def _kill_pubsub(client: Any) -> None:
    await _kill_ours(client, "pubsub")


async def _kill_normal(client: Any) -> None:
    await _kill_ours(client, "normal")


@pytest.mark.parametrize("disturb", [_flush_scripts, _kill_pubsub, _kill_normal])
async def test_a_redis_that_is_disturbed_again_and_again_costs_time_only(
    redis_server: RedisServer, prefix: str, disturb: Callable[[Any], Awaitable[None]]
) -> None:
    followers = [Follower(f"acme/s-{number}") for number in range(5)]
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        Redis.from_url(redis_server.url) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        for follower in followers:
            await stack.enter_async_context(follower.following(service))
        await stack.enter_async_context(answering(executor, "a", "b", "c"))

        async def keep_disturbing() -> None:
            while True:
                await disturb(client)

        disturbing = asyncio.create_task(keep_disturbing())
        sent, until = 0, time.monotonic() + 3
        while time.monotonic() < until:
            session = followers[sent % 5].session
            async with asyncio.timeout(10):
                while (await service.send(session, key=f"{KEY}{sent}")).status != 202:
                    await asyncio.sleep(0.02)
            sent += 1
        disturbing.cancel()
        await asyncio.gather(disturbing, return_exceptions=True)
        for number, follower in enumerate(followers):
            mine = len(range(number, sent, 5))
            await follower.ended(mine, within=20)
            assert follower.types.count("user_message") == mine
            assert follower.text == "abc" * mine
        assert await restarts(service) == 0
    assert sent > 20


# R19, R20: the hint is lost


async def test_a_subscriber_that_redis_cut_off_for_its_backlog_finds_the_rest_in_the_log(
    prefix: str,
) -> None:
    with RedisServer("--client-output-buffer-limit", "pubsub", "100kb", "0", "0") as server:
        follower = Follower()
        big = {"tenant_id": "acme", "session_id": "s-1", "message_data": {"text": "x" * 400_000}}
        async with (
            process_service(server.url, prefix) as sleeper,
            running_service(server.url, prefix) as other,
            Redis.from_url(server.url) as client,
            follower.following(sleeper),
        ):
            ours = await _subscribers(client)
            sleeper.send_signal(signal.SIGSTOP)
            for _ in range(40):
                assert (await other.post("/api/ws/send", big)).status == 202
            assert len(await _subscribers(client)) < len(ours)
            sleeper.send_signal(signal.SIGCONT)
            await follower.until(lambda: len(follower.events) == 40, within=30)


async def _subscribers(client: Any) -> set[str]:
    return {each["id"] for each in await client.client_list(_type="pubsub")}


async def test_a_subscription_that_falls_silent_is_noticed_and_made_anew(
    redis_server: RedisServer, prefix: str
) -> None:
    """Only the listening connection stalls; everything else goes on as if nothing were wrong."""
    async with (
        Proxy(redis_server.port) as proxy,
        running_service(proxy.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        Redis.from_url(redis_server.url) as client,
    ):
        follower = Follower()
        async with follower.following(service):
            deaf = {
                int(each["addr"].rpartition(":")[2])
                for each in await client.client_list(_type="pubsub")
            }
            proxy.freeze(deaf)
            stalled = time.monotonic()
            await service.send()
            task = await executor.take()
            await executor.stream_answer(task, "a")
            await executor.complete(task, "a")
            await follower.ended(within=8)
            measured("a silent subscription is found and filled", time.monotonic() - stalled, "s")
            assert follower.closes == []


# R23: much to take over


async def test_forty_thousand_entries_of_a_dead_reader_are_taken_over_page_by_page(
    redis_server: RedisServer, prefix: str
) -> None:
    """Most of them are gone from the stream: whole pages of nothing are no end."""
    stream = f"{prefix}callbacks:{{{prefix}dead:callbacks}}"
    async with Redis.from_url(redis_server.url) as client:
        await client.xgroup_create(stream, "orchestrator", "0", mkstream=True)
        for _ in range(8):
            pipeline = client.pipeline(transaction=False)
            for _ in range(5000):
                pipeline.xadd(stream, {"task_id": "nobody"})
            await pipeline.execute()
        await client.xreadgroup("orchestrator", "dead", {stream: ">"}, count=40_000)
        await client.xtrim(stream, maxlen=1000, approximate=False)
        quick: Any = {"callbacks": {"claim_idle": 0.5, "poll_seconds": 0.05}}
        async with (
            running_service(redis_server.url, prefix, **quick) as service,
            FakeExecutor(redis_server.url, prefix) as executor,
            service.connect() as socket,
        ):
            begun = time.monotonic()
            await goes_on(service, executor, socket)  # what is new does not wait for it
            await eventually(lambda: _none_pending(client, stream), within=60)
            measured("takeover of 40 000 entries of a dead reader", time.monotonic() - begun, "s")
            assert await client.xlen(stream) == 0
            assert await client.xlen(f"{prefix}dead:callbacks") == 1000


async def _none_pending(client: Redis, stream: str) -> bool:
    return int((await client.xpending(stream, "orchestrator"))["pending"]) == 0
