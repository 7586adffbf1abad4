"""The events of a session by REST: pages, limits, epochs, joined deltas."""

import asyncio
from typing import Any

import pytest

from tests.support.client import WITHIN, Address
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def push(service: Address, session: str, **data: Any) -> None:
    tenant_id, session_id = session.split("/")
    body = {"tenant_id": tenant_id, "session_id": session_id, "message_data": data}
    assert (await service.post("/api/ws/send", body)).status == 202


async def test_an_unknown_session_has_no_epoch_and_is_not_begun(
    instance: Address, tenant: str
) -> None:
    for query in ({}, {"epoch": "any"}, {"offset": 7}):
        assert await instance.events(f"{tenant}/s", **query) == {
            "epoch": None,
            "events": [],
            "next_offset": 0,
            "last_offset": 0,
            "oldest_offset": None,
        }


async def test_pages_lead_to_the_end(instance: Address, tenant: str) -> None:
    session = f"{tenant}/s"
    for i in range(7):
        await push(instance, session, n=i)
    seen: list[int] = []
    offset = 0
    while True:
        page = await instance.events(session, offset=offset, limit=3)
        assert (page["last_offset"], page["oldest_offset"]) == (7, 1)
        if not page["events"]:
            break
        seen += [event["offset"] for event in page["events"]]
        offset = page["next_offset"]
    assert seen == list(range(1, 8))
    assert page["next_offset"] == 7
    beyond = await instance.events(session, offset=1000)
    assert (beyond["events"], beyond["next_offset"]) == ([], 7)


async def test_another_epoch_is_a_conflict(instance: Address, tenant: str) -> None:
    await push(instance, f"{tenant}/s", n=1)
    epoch = (await instance.events(f"{tenant}/s"))["epoch"]
    assert (await instance.events(f"{tenant}/s", epoch=epoch))["epoch"] == epoch
    answer = await instance.get(f"/api/sessions/{tenant}/s/events?epoch=other")
    assert (answer.status, answer.code) == (409, "epoch_changed")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=1e2", "limit"),
        ("offset=-1", "offset"),
        ("offset=9007199254740992", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("offset=NaN", "offset"),
        ("offset=%D9%A3", "offset"),
        ("compact=2", "compact"),
        ("compact=true", "compact"),
    ],
)
async def test_a_query_out_of_bounds_is_refused_by_name(
    instance: Address, tenant: str, query: str, field: str
) -> None:
    answer = await instance.get(f"/api/sessions/{tenant}/s/events?{query}")
    assert (answer.status, answer.code) == (422, "validation_failed")
    assert answer.json["errors"].keys() == {field}


@pytest.mark.parametrize("limit", [1, 2, 999, 1000])
async def test_a_limit_within_bounds_is_taken(instance: Address, tenant: str, limit: int) -> None:
    assert (await instance.events(f"{tenant}/s", limit=limit, offset=2**53 - 1))["events"] == []


@pytest.mark.parametrize("path", ["a{b}/s", "acme/s%0A", "acme/a%2Fb", "-a/s", f"{'a' * 129}/s"])
async def test_a_path_of_no_session_is_refused(instance: Address, path: str) -> None:
    answer = await instance.get(f"/api/sessions/{path}/events")
    assert (answer.status, answer.code) == (422, "validation_failed")


async def test_joined_deltas_count_as_one_frame(redis_server: RedisServer, prefix: str) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        await service.send("acme/s")
        task = await executor.take()
        words = [f"w{i} " for i in range(1200)]
        await executor.stream_answer(task, *words[:600])
        await executor.report(task, "event", {"name": "tool"})
        for word in words[600:]:
            await executor.report(task, "delta", {"text": word})
        await executor.report(task, "delta", {"text": "!", "extra": 1})
        await executor.complete(task)
        async with asyncio.timeout(WITHIN):
            while (await service.events("acme/s"))["last_offset"] < 1205:
                await asyncio.sleep(0.05)
        joined: list[dict[str, Any]] = []
        offset = 0
        while page := (await service.events("acme/s", offset=offset, limit=2, compact=1)):
            if not page["events"]:
                break
            assert len(page["events"]) <= 2
            joined += page["events"]
            offset = page["next_offset"]
        assert [frame["type"] for frame in joined] == [
            *("user_message", "task_update", "agent_delta", "agent_event"),
            *("agent_delta", "agent_delta", "agent_response"),
        ]
        assert [frame.get("from_offset", frame["offset"]) for frame in joined] == [
            *(1, 2, 3, 603, 604, 1204, 1205)
        ]
        assert joined[2]["data"]["text"] + joined[4]["data"]["text"] == "".join(words)
        # An offset within a joined frame gives the rest of it.
        (rest,) = (await service.events("acme/s", offset=700, limit=1, compact=1))["events"]
        assert (rest["from_offset"], rest["data"]["text"]) == (701, "".join(words[697:]))
        plain = await service.events("acme/s", limit=1000)
        assert len(plain["events"]) == 1000
