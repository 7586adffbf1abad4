"""What a tenant used, by day."""

from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, running_service

COUNTED = ("requests", "completed", "input_tokens", "output_tokens", "cost")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


async def test_a_day_without_any_use_is_all_zero(instance: RunningProcess, tenant: str) -> None:
    answer = await instance.get(f"/usage/{tenant}?date=2026-01-31")
    assert answer.status == 200
    names = ("requests", "completed", "failed", "cancelled", "timeout")
    zeros = dict.fromkeys((*names, "input_tokens", "output_tokens", "cost"), 0)
    assert answer.json == {"tenant_id": tenant, "date": "2026-01-31", **zeros}


async def test_this_day_is_meant_where_none_is_named(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        before = today()
        sent = await service.send("acme/s")
        task = await executor.take()
        usage = {"input_tokens": 12, "output_tokens": 34, "cost": 0.5}
        await executor.report(task, "completed", {"response": "done", "usage": usage})
        await service.task_ended(sent.json["task_id"])
        used = (await service.get("/usage/acme")).json
        assert before <= used["date"] <= today()
        assert used == (await service.get(f"/usage/acme?date={used['date']}")).json
        days = [  # two, at midnight
            (await service.get(f"/usage/acme?date={day}")).json for day in {before, today()}
        ]
        total = {name: sum(each[name] for each in days) for name in COUNTED}
        assert total == dict(zip(COUNTED, (1, 1, 12, 34, 0.5), strict=True))
        assert (await service.get("/usage/globex")).json["requests"] == 0


@pytest.mark.parametrize(
    "date",
    [
        *("", "today", "2026-1-31", "2026-02-30", "20260131", "2026-W05-6", "2026-01-31T00"),
        "\u0662\u0660\u0662\u0666-01-31",
    ],
)
async def test_what_is_no_date_is_refused(instance: RunningProcess, tenant: str, date: str) -> None:
    answer = await instance.get(f"/usage/{tenant}?date={quote(date)}")
    assert (answer.status, answer.code) == (422, "validation_failed")
    assert answer.json["errors"].keys() == {"date"}


async def test_what_is_no_tenant_is_refused(instance: RunningProcess) -> None:
    assert (await instance.get("/usage/a%7Bb%7D")).status == 422
