"""Sections 3 and 8: which tier a tenant has, what it may ask for, and who has none."""

from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.lines import accepted
from tests.contract.talk import talk
from tests.support.client import close_code
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize(
    ("tier", "asked", "given"),
    [
        ("free", "high", "low"),
        ("free", None, "low"),
        ("starter", "high", "normal"),
        ("starter", "low", "low"),
        ("pro", "high", "high"),
        ("enterprise", "high", "high"),
    ],
)
async def test_a_priority_above_the_tiers_is_lowered_to_it(
    redis_server: RedisServer, prefix: str, tier: str, asked: str | None, given: str
) -> None:
    async with talk(redis_server, prefix, tenants={"acme": {"tier": tier}}) as each:
        task = await each.taken(**({"priority": asked} if asked else {}))
        assert task.stream == each.executor.stream(given)
        assert task.action["priority"] == given


async def test_tenants_without_a_tier_are_refused_everywhere(
    redis_server: RedisServer, prefix: str
) -> None:
    settings: Any = {"default_tier": None, "tenants": {"acme": {"tier": "free"}}}
    async with talk(redis_server, prefix, **settings) as each:
        await accepted(each.service, 1)
        push = {"tenant_id": "other", "message_data": {}}
        answers = [
            await each.service.send("other/s-1"),
            await each.service.get("/api/sessions/other/s-1/events"),
            await each.service.post("/api/ws/send", {**push, "session_id": "s-1"}),
            await each.service.post("/api/ws/broadcast", push),
        ]
        assert [(answer.status, answer.code) for answer in answers] == [(403, "forbidden")] * 4
        with pytest.raises(InvalidStatus) as refused:
            async with each.service.connect("other/s-1"):
                pass
        assert refused.value.response.status_code == 403
        async with each.service.connect("other/s-1", close_codes=1) as socket:
            assert await close_code(socket) == 4403
        task = {"tenant_id": "other", "task_id": "7a0f1d5e-0a59-4f4c-8a5e-7b1f1c9d2e11"}
        for command in ("status", "cancel"):
            answer = await each.service.post(f"/api/chat/{command}", task)
            assert answer.status in {403, 404}


async def test_another_default_tier_is_that_of_all_who_are_not_listed(
    redis_server: RedisServer, prefix: str
) -> None:
    settings: Any = {
        "default_tier": "one",
        "tiers": {"one": {"requests_per_minute": 1}, "two": {"requests_per_minute": 2}},
        "tenants": {"acme": {"tier": "two"}},
    }
    async with talk(redis_server, prefix, **settings) as each:
        await accepted(each.service, 1, "anybody")
        assert (await each.service.send("anybody/s-1")).status == 429
        await accepted(each.service, 2, "acme")
        assert (await each.service.send("acme/s-1")).status == 429
