"""Send, status, cancel: each status and code that section 3 gives them."""

import asyncio
import uuid
from typing import Any

import orjson
import pytest

from tests.support.client import Address, Answer, frames_until, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def test_a_message_is_answered_with_its_task(instance: Address, tenant: str) -> None:
    answer = await instance.send(f"{tenant}/s-1")
    assert answer.status == 202
    assert answer.json.keys() == {"task_id", "status", "tenant_id", "session_id", "created_at"}
    assert (answer.json["status"], answer.json["session_id"]) == ("queued", "s-1")
    assert uuid.UUID(answer.json["task_id"])
    assert "Idempotent-Replayed" not in answer.headers
    task = await instance.status(answer.json["task_id"], tenant)
    assert task == {
        **{name: answer.json[name] for name in ("task_id", "tenant_id", "session_id")},
        "agent_id": "echo",
        "status": "queued",
        "progress": None,
        "attempt": None,
        "created_at": answer.json["created_at"],
        "updated_at": task["updated_at"],
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "usage": None,
    }


async def test_a_task_is_followed_from_queued_to_completed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/s-1") as socket,
    ):
        await next_frame(socket)
        task_id = (await service.send("acme/s-1", context={"a": [1, None]})).json["task_id"]
        task = await executor.take()
        assert task.action["message"] == "hello"
        assert task.action["context"] == {"a": [1, None]}
        await executor.report(task, "started")
        await executor.report(task, "progress", {"progress": 50, "message": "half"})
        await frames_until(socket, "task_update")
        await frames_until(socket, "task_update")
        running = await service.status(task_id)
        assert (running["status"], running["progress"], running["attempt"]) == ("running", 50, 1)
        await executor.report(task, "delta", {"text": "so far"})
        usage = {"input_tokens": 3, "output_tokens": 5, "cost": 0.1}
        await executor.report(task, "completed", {"response": "done", "usage": usage})
        await frames_until(socket, "agent_response")
        done = await service.status(task_id)
        assert done["status"] == "completed"
        assert done["result"]["response"] == "done"
        assert done["usage"] == usage
        assert done["started_at"] <= done["finished_at"]


@pytest.mark.parametrize("path", ["/api/chat/status", "/api/chat/cancel"])
async def test_a_task_that_is_unknown_or_another_tenants_is_not_found(
    instance: Address, tenant: str, path: str
) -> None:
    task_id = (await instance.send(f"{tenant}/s")).json["task_id"]
    for body in (
        {"tenant_id": tenant, "task_id": str(uuid.uuid4())},
        {"tenant_id": f"{tenant}x", "task_id": task_id},
        {"tenant_id": tenant, "task_id": "{}:\n"},
    ):
        answer = await instance.post(path, body)
        assert (answer.status, answer.code) == (404, "task_not_found")


async def test_a_waiting_task_is_cancelled_at_once_and_again(
    instance: Address, tenant: str
) -> None:
    task_id = (await instance.send(f"{tenant}/s")).json["task_id"]
    body = {"tenant_id": tenant, "task_id": task_id, "reason": "changed my mind"}
    for _ in range(2):
        answer = await instance.post("/api/chat/cancel", body)
        assert (answer.status, answer.json) == (200, {"task_id": task_id, "status": "cancelled"})


async def test_a_running_task_is_cancelling_until_its_worker_stops(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/s-1") as socket,
    ):
        task_id = (await service.send("acme/s-1")).json["task_id"]
        task = await executor.take()
        await executor.stream_answer(task, "so ", "far")
        await frames_until(socket, "agent_delta")
        await frames_until(socket, "agent_delta")
        body = {"tenant_id": "acme", "task_id": task_id}
        for _ in range(2):
            answer = await service.post("/api/chat/cancel", body)
            assert (answer.status, answer.json["status"]) == (202, "cancelling")
        assert await executor.redis.exists(f"{prefix}cancel:{task_id}")
        await executor.report(task, "cancelled")
        await executor.finish(task)
        ended = await service.task_ended(task_id)
        assert ended["status"] == "cancelled"
        assert ended["result"] == {"response": "so far", "partial": True}
        assert (await service.post("/api/chat/cancel", body)).status == 200


async def test_a_finished_task_cannot_be_cancelled(redis_server: RedisServer, prefix: str) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        task_id = (await service.send()).json["task_id"]
        await executor.complete(await executor.take())
        await service.task_ended(task_id)
        answer = await service.post("/api/chat/cancel", {"tenant_id": "acme", "task_id": task_id})
        assert (answer.status, answer.code) == (409, "task_already_finished")


# Idempotency


async def test_the_same_key_and_an_equal_body_replay_the_first_answer(
    instance: Address, tenant: str
) -> None:
    key = str(uuid.uuid4())
    first = await instance.send(f"{tenant}/s", key=key, metadata={"a": 1, "b": 2})
    again = await instance.send(f"{tenant}/s", key=key, metadata={"b": 2.0, "a": 1})
    assert (again.status, again.body) == (202, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    events = (await instance.events(f"{tenant}/s"))["events"]
    assert [event["type"] for event in events] == ["user_message"]


async def test_the_same_key_and_another_body_are_a_conflict(instance: Address, tenant: str) -> None:
    await instance.send(f"{tenant}/s", "one", key="k")
    answer = await instance.send(f"{tenant}/s", "two", key="k")
    assert (answer.status, answer.code) == (409, "idempotency_conflict")
    assert (await instance.send(f"{tenant}/other", "two", key="k")).status == 202
    assert (await instance.send(f"{tenant}x/s", "two", key="k")).status == 202


@pytest.mark.parametrize("key", ["k" * 129, "a\tb", "ä", " "])
async def test_a_key_that_is_none_is_refused(instance: Address, tenant: str, key: str) -> None:
    answer = await instance.send(f"{tenant}/s", key=key)
    assert (answer.status, answer.code) == (422, "validation_failed")
    assert answer.json["errors"].keys() == {"Idempotency-Key"}


async def test_one_task_is_made_of_simultaneous_sends_to_two_instances(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as one,
        running_service(redis_server.url, prefix) as other,
    ):
        answers: list[Answer] = await asyncio.gather(
            *(each.send(key="k") for each in (one, other) * 8)
        )
        assert {answer.status for answer in answers} == {202}
        assert len({answer.body for answer in answers}) == 1
        replayed = [answer for answer in answers if "Idempotent-Replayed" in answer.headers]
        assert len(replayed) == 15


# Refusals of the whole instance


async def test_an_agent_that_is_not_served_is_not_found(
    redis_server: RedisServer, prefix: str
) -> None:
    agents: dict[str, Any] = {"echo": {}, "private": {"tenants": ["other"]}}
    async with running_service(redis_server.url, prefix, agents=agents) as service:
        assert (await service.send()).status == 202
        for agent in ("unknown", "private"):
            answer = await service.send(agent_id=agent)
            assert (answer.status, answer.code) == (404, "agent_not_found")
        assert (await service.send("other/s", agent_id="private")).status == 202


@pytest.mark.alone
async def test_sends_are_refused_within_3_seconds_while_redis_is_away_and_taken_again_after(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, running_service(proxy.url, prefix) as service:
        proxy.blackhole()
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await asyncio.gather(*(service.send(key=f"k{i}") for i in range(20)))
        assert loop.time() - began < 3.2
        for answer in answers:
            assert (answer.status, answer.code) == (503, "redis_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        assert (await service.get("/health")).status == 200
        assert (await service.get("/health/ready")).status == 503
        await proxy.heal()
        proxy.cut()
        async with asyncio.timeout(5):
            while (answer := await service.send(key="k0")).status != 202:
                assert answer.code == "redis_unavailable"
        assert len((await service.events())["events"]) >= 1


async def test_a_draining_instance_takes_nothing_new(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        task_id = (await service.send()).json["task_id"]
        serving, service.service.app.phase = (
            service.service.app.phase,
            type(service.service.app.phase)("draining"),
        )
        push = {"tenant_id": "acme", "session_id": "s", "message_data": {}}
        for answer in (
            await service.send(),
            await service.post("/api/ws/send", push),
            await service.get("/health/ready"),
        ):
            assert (answer.status, answer.code) == (503, "draining")
            assert "Retry-After" in answer.headers
        events, stream = "/api/sessions/acme/s/events", {"Accept": "text/event-stream"}
        assert (await service.request("HEAD", events, headers=stream)).status == 503
        assert (await service.status(task_id))["status"] == "queued"
        service.service.app.phase = serving


async def test_a_full_router_refuses_and_goes_on(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actors.chat_router import ChatRouterActor

    monkeypatch.setattr(ChatRouterActor, "mailbox_size", 4)
    async with running_service(redis_server.url, prefix) as service:
        answers = await asyncio.gather(*(service.send(message=str(i)) for i in range(60)))
        assert {answer.status for answer in answers} <= {202, 503}
        for answer in answers:
            if answer.status == 503:
                assert answer.code == "overloaded"
        accepted = [orjson.loads(each.body)["task_id"] for each in answers if each.status == 202]
        events = (await service.events(limit=100))["events"]
        assert sorted(event["task_id"] for event in events) == sorted(accepted)


async def test_what_a_later_version_brings_is_refused_as_such(
    instance: Address, tenant: str
) -> None:
    answer = await instance.send(f"{tenant}/s", if_busy="never")
    assert (answer.status, answer.code) == (422, "validation_failed")
