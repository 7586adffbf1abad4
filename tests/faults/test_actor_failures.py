"""An exception in each class of actors in turn, on a whole service: it is restarted, the log says
what happened, and a session that streams meanwhile gets each of its events once, in order.

FAULTS.md P9. What a process does whose actors cannot be helped is at the end: it leaves readiness,
and ends with a status other than 0 (the process of its own is told by `FAILPOINTS`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from common.failpoints import armed
from tests.support.client import WITHIN, Frame, close_code, frames_until, next_frame, say
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.processes import worker_process
from tests.support.redis_server import RedisServer
from tests.support.service import Running, process_service, running_service

MANAGER = "supervisor/connection_manager"


class Stream:
    """A session whose agent streams while something else fails, and the client that listens."""

    def __init__(self, executor: FakeExecutor, task: TakenTask, socket: ClientConnection) -> None:
        self.executor = executor
        self.task = task
        self.socket = socket
        self.texts: list[str] = []
        self.events: list[Frame] = []  # that the client has got

    async def go_on(self, count: int = 5) -> None:
        for _ in range(count):
            self.texts.append(f"{len(self.texts)} ")
            await self.executor.report(self.task, "delta", {"text": self.texts[-1]})

    async def caught_up(self) -> None:
        """Returns once the client has got all texts: nothing of them is on its way any more."""
        while not self.events or self.events[-1]["data"].get("text") != self.texts[-1]:
            self.events += [each for each in [await next_frame(self.socket)] if "offset" in each]

    async def ends_well(self) -> None:
        """The client got each event once and in order, to the end."""
        await self.executor.complete(self.task)
        frames = await frames_until(self.socket, "agent_response")
        self.events += [frame for frame in frames if "offset" in frame]
        assert_whole(self.events, self.texts)


def assert_whole(events: list[Frame], texts: list[str]) -> None:
    """Offsets without a hole from 1 on, and these deltas."""
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    deltas = [event["data"]["text"] for event in events if event["type"] == "agent_delta"]
    assert deltas == texts


class Scene:
    """A service, an execution service, and a session that streams."""

    def __init__(self, service: Running, executor: FakeExecutor, stream: Stream) -> None:
        self.service = service
        self.executor = executor
        self.stream = stream

    async def supervision(self, *, since: str = "") -> list[dict[str, Any]]:
        events = (await self.service.get("/actors/supervision?limit=500")).json["events"]
        return [event for event in events if event["at"] >= since]

    async def failure_of(self, actor: str) -> dict[str, Any]:
        """The failure of that actor, as soon as `/actors/supervision` shows it."""
        return await self.told(actor, "actor.failed")

    async def told(self, actor: str, event: str) -> dict[str, Any]:
        async with asyncio.timeout(WITHIN):
            while True:
                for each in await self.supervision():
                    if each["event"] == event and each["actor"].startswith(actor):
                        return each
                await asyncio.sleep(0.02)

    async def was_restarted(self, actor: str, actor_class: str, message_type: str | None) -> None:
        """Logged, restarted, and shown in the tree with its restart."""
        failure = await self.failure_of(actor)
        assert failure["class"] == actor_class
        assert failure["message_type"] == message_type
        assert failure["error_type"] in ("Injected", "InjectedBase")
        assert failure["outcome"] == "restart"
        assert "failpoint" in failure["traceback"]
        restart = await self.told(actor, "actor.restarted")
        assert restart["restarts"] == 1
        tree = (await self.service.get("/actors")).json
        (node,) = [each for each in tree["children"] if f"supervisor/{each['name']}" == actor]
        assert (node["class"], node["state"], node["restarts"]) == (actor_class, "running", 1)

    async def ends_well(self) -> None:
        """The session streams on to its end, and nobody complains."""
        await self.stream.go_on()
        await self.stream.ends_well()
        await self.is_well()

    async def is_well(self) -> None:
        await self.service.ready()
        assert (await self.service.get("/health/detailed")).json["components"]["actors"][
            "status"
        ] == "healthy"


@asynccontextmanager
async def scene(redis_server: RedisServer, prefix: str, **overrides: Any) -> AsyncIterator[Scene]:
    quick = {"callbacks": {"poll_seconds": 0.1}}
    async with (
        running_service(redis_server.url, prefix, **quick, **overrides) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/streaming") as socket,
    ):
        await frames_until(socket, "connection_ack")
        await service.send("acme/streaming")
        task = await executor.take()
        stream = Stream(executor, task, socket)
        await executor.report(task, "started")
        await stream.go_on()
        yield Scene(service, executor, stream)


@pytest.mark.parametrize("how", ["raise", "base"])
async def test_a_chat_router_that_fails_is_restarted(
    redis_server: RedisServer, prefix: str, how: str
) -> None:
    async with scene(redis_server, prefix) as on:
        with armed(f"chat_router.on_batch={how}:1"):
            assert (await on.service.send("acme/other")).status in (500, 503)
            await on.stream.go_on()
        assert (await on.service.send("acme/other")).status == 202
        await on.was_restarted("supervisor/chat_router", "ChatRouterActor", "ChatSendMessageAction")
        await on.ends_well()


@pytest.mark.parametrize("where", ["on_receive", "after_read"])
async def test_a_callback_worker_that_fails_is_restarted_and_loses_no_callback(
    redis_server: RedisServer, prefix: str, where: str
) -> None:
    async with scene(redis_server, prefix) as on:
        with armed(f"callbacks.{where}=raise:1"):
            await on.stream.go_on()
            await on.was_restarted("supervisor/callback_worker", "CallbackWorkerActor", "ReadAgain")
        await on.ends_well()


async def test_a_failure_between_applying_callbacks_and_acking_shows_none_twice(
    redis_server: RedisServer, prefix: str
) -> None:
    async with scene(redis_server, prefix) as on:
        with armed("callbacks.after_apply=raise:3"):
            await on.stream.go_on(20)
            failure = await on.failure_of("supervisor/callback_worker")
            assert failure["outcome"] == "contained"
        await on.ends_well()


async def test_a_push_worker_that_fails_is_restarted_and_loses_no_push(
    redis_server: RedisServer, prefix: str
) -> None:
    async with scene(redis_server, prefix) as on, on.service.connect("acme/other") as socket:
        push = {
            "action_type": "websocket.send_message",
            "action_id": "7b9cf6b6-2b3c-4c55-9e2e-3c29ed1b5a34",
            "tenant_id": "acme",
            "session_id": "other",
            "message_type": "note",
            "message_data": {"n": 1},
        }
        await frames_until(socket, "connection_ack")
        with armed("pushes.after_read=raise:1"):
            await on.executor.push(push)
            await on.was_restarted("supervisor/push_worker", "PushWorkerActor", "ReadAgain")
        frames = await frames_until(socket, "note")
        assert frames[-1]["data"] == {"n": 1}
        await on.ends_well()


@pytest.mark.parametrize("where", ["on_receive=raise", "after_take=base"])
async def test_a_housekeeper_that_fails_is_restarted_and_keeps_time(
    redis_server: RedisServer, prefix: str, where: str
) -> None:
    async with scene(redis_server, prefix) as on:
        with armed(f"housekeeper.{where}:1"):
            await on.was_restarted("supervisor/housekeeper", "HousekeeperActor", "LookAgain")
        task_id = (await on.service.send("acme/other", timeout=1)).json["task_id"]
        await on.stream.go_on()
        assert (await on.service.task_ended(task_id))["status"] == "timeout"
        await on.ends_well()


async def test_a_session_that_fails_is_closed_and_resumes_and_no_other_hears_of_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with scene(redis_server, prefix) as on:
        service = on.service
        async with service.connect("acme/other") as victim:
            ack = (await frames_until(victim, "connection_ack"))[0]["data"]
            await on.stream.caught_up()  # lest it be the other session that fails
            with armed("session.on_receive=raise:1"):
                await say(victim, "ping", "p")
                assert await close_code(victim) == 4500
        failure = await on.failure_of(f"{MANAGER}/{ack['connection_id']}")
        assert (failure["class"], failure["message_type"]) == ("SessionActor", "Ping")
        assert (failure["outcome"], failure["error_type"]) == ("ended", "Injected")
        await service.send("acme/other")
        async with service.connect("acme/other", epoch=ack["epoch"], offset=0) as again:
            frames = await frames_until(again, "user_message")
            assert frames[0]["data"]["recovered"] is True
            stats = (await service.get("/ws/stats")).json["instance"]
            assert (stats["connections"], stats["sessions"]) == (2, 2)
        await on.ends_well()


async def test_a_session_that_fails_at_its_start_is_closed_and_not_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    async with scene(redis_server, prefix) as on:
        with armed("session.on_start=base:1"):
            async with on.service.connect("acme/other") as victim:
                assert await close_code(victim) == 4500
        failure = await on.failure_of(f"{MANAGER}/")
        assert (failure["class"], failure["phase"]) == ("SessionActor", "on_start")
        assert (await on.service.get("/ws/stats")).json["instance"]["connections"] == 1
        await on.ends_well()


async def test_a_connection_manager_that_fails_closes_its_clients_and_they_resume(
    redis_server: RedisServer, prefix: str
) -> None:
    async with scene(redis_server, prefix) as on:
        service, stream = on.service, on.stream
        async with service.connect("acme/other") as other:
            await frames_until(other, "connection_ack")
            await stream.caught_up()
            with armed("connection_manager.on_receive=raise:1"):
                # An event that is heard breaks it: that message is lost, the log has it.
                await on.executor.report(stream.task, "event", {"name": "breaks"})
                stream.events += [frame async for frame in events_of(stream.socket)]
                assert await close_code(other) == 4500
        assert stream.socket.close_code == 4500
        await on.was_restarted(MANAGER, "ConnectionManagerActor", "Heard")
        stats = (await service.get("/ws/stats")).json["instance"]
        assert (stats["connections"], stats["sessions"], stats["by_tenant"]) == (0, 0, {})
        await stream.go_on()
        epoch = (await service.events("acme/streaming"))["epoch"]
        last = stream.events[-1]["offset"]
        async with service.connect("acme/streaming", epoch=epoch, offset=last) as again:
            await stream.go_on()
            await on.executor.complete(stream.task)
            frames = await frames_until(again, "agent_response")
            assert frames[0]["data"]["recovered"] is True
            stats = (await service.get("/ws/stats")).json["instance"]
            assert (stats["connections"], stats["by_tenant"]) == (1, {"acme": 1})
        assert_whole(stream.events + frames[1:], stream.texts)
        await on.is_well()


async def events_of(socket: ClientConnection) -> AsyncIterator[Frame]:
    """What the socket gives until it is closed."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            frame = await next_frame(socket)
            if "offset" in frame:
                yield frame


async def test_an_agent_that_takes_its_worker_with_it_is_tried_again_and_disturbs_no_other(
    redis_server: RedisServer, prefix: str
) -> None:
    """What the actors depend on, and the demo agent that is made to kill it."""
    async with scene(redis_server, prefix, execution={"visibility_timeout": 1}) as on:
        await on.executor.finish(on.stream.task)  # lest another worker takes it over
        async with worker_process(redis_server.url, prefix) as first:
            task_id = (await on.service.send("acme/o", "crash once", agent_id="faulty")).json[
                "task_id"
            ]
            await on.stream.go_on()
            assert await asyncio.wait_for(first.wait(), WITHIN) == -9
        await on.stream.go_on()
        async with worker_process(redis_server.url, prefix):
            task = await on.service.task_ended(task_id)
        assert (task["status"], task["attempt"]) == ("completed", 2)
        assert task["result"]["response"] == "Survived: this is attempt 2."
        assert_whole((await on.service.events("acme/o"))["events"], TOLD)
        await on.stream.ends_well()
        assert [e for e in await on.supervision() if e["event"] == "actor.failed"] == []


TOLD = ["This is never the end of it. ", "Survived: this is attempt 2."]


POINTS = (
    *("chat_router", "doorkeeper", "callbacks", "pushes", "housekeeper"),
    "connection_manager",
)


async def test_an_actor_that_fails_at_its_start_is_started_again(
    redis_server: RedisServer, prefix: str
) -> None:
    with armed(",".join(f"{point}.on_start=raise:1" for point in POINTS)):
        async with scene(redis_server, prefix) as on:
            failed = {
                "supervisor/chat_router",
                "supervisor/doorkeeper",
                "supervisor/callback_worker",
                "supervisor/push_worker",
                "supervisor/housekeeper",
                "supervisor/connection_manager",
            }
            for actor in failed:
                await on.told(actor, "actor.restarted")
            restarted = [
                each["actor"]
                for each in await on.supervision()
                if each["event"] == "actor.restarted"
            ]
            assert sorted(restarted) == sorted(failed)
            await on.stream.go_on()
            await on.stream.ends_well()
            await on.is_well()


async def test_actors_that_fail_while_they_stop_do_not_keep_the_service_from_stopping(
    redis_server: RedisServer, prefix: str
) -> None:
    stops = ("housekeeper", "doorkeeper", "connection_manager", "session")
    with armed(",".join(f"{point}.on_stop=raise" for point in stops)):
        async with scene(redis_server, prefix) as on:
            await on.service.service.drain()
            assert await close_code(on.stream.socket) == 1012


@pytest.mark.parametrize(
    "point", ["callbacks.on_receive", "housekeeper.on_receive", "connection_manager.on_start"]
)
async def test_an_actor_that_cannot_be_helped_ends_the_process(
    redis_server: RedisServer, prefix: str, point: str
) -> None:
    environ = {"FAILPOINTS": f"{point}=raise"}
    async with process_service(
        redis_server.url, prefix, environ=environ, is_ready=False
    ) as service:
        assert await service.exited() == 1
        assert "actor.escalated" in service.log
        assert "service.failed" in service.log
        assert "Injected" in service.log


async def test_a_supervisor_that_fails_ends_the_process(
    redis_server: RedisServer, prefix: str
) -> None:
    environ = {"FAILPOINTS": "supervisor.on_receive=raise"}
    async with process_service(redis_server.url, prefix, environ=environ) as service:
        assert (await service.get("/actors")).status >= 500
        assert await service.exited() == 1
        assert "itself failed" in service.log


async def test_an_instance_that_gave_up_an_actor_is_not_ready_any_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        with armed("housekeeper.on_receive=raise"):
            reason = await asyncio.wait_for(asyncio.shield(service.service.failed), WITHIN)
        assert "supervisor/housekeeper failed 6 times" in reason
        assert (await service.get("/health/ready")).status == 503
        assert (await service.get("/health")).status == 200
        health = await service.get("/health/detailed")
        assert (health.status, health.json["components"]["actors"]["status"]) == (503, "unhealthy")
        events = (await service.get("/actors/supervision")).json["events"]
        (escalated,) = [each for each in events if each["event"] == "actor.escalated"]
        assert (escalated["actor"], escalated["restarts"]) == ("supervisor/housekeeper", 5)
