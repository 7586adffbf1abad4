"""What tenants used, as `GET /usage/{tenant_id}` tells."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.contract.talk import Talk, until
from tests.support.client import Address
from tests.support.fake_executor import TakenTask

ENDS = ("completed", "failed", "cancelled", "timeout")
COUNTED = ("requests", *ENDS, "input_tokens", "output_tokens", "cost")
SPENT = {"usage": {"input_tokens": 10, "output_tokens": 5, "cost": 0.25}}


def days() -> set[str]:
    """Today, and what was today a minute ago: a test may run at midnight."""
    now = datetime.now(UTC)
    return {now.date().isoformat(), (now - timedelta(minutes=1)).date().isoformat()}


async def usage(service: Address, tenant_id: str = "acme") -> dict[str, Any]:
    """What a tenant has used, as far as it is not zero."""
    total: dict[str, Any] = dict.fromkeys(COUNTED, 0)
    for date in days():
        answer = await service.get(f"/usage/{tenant_id}?date={date}")
        assert answer.status == 200, answer
        assert answer.json.keys() == {"tenant_id", "date", *COUNTED}
        assert (answer.json["tenant_id"], answer.json["date"]) == (tenant_id, date)
        for name in COUNTED:
            total[name] += answer.json[name]
    return {name: value for name, value in total.items() if value}


async def counted(service: Address, tenant_id: str = "acme", **expected: Any) -> None:
    """Returns once all of this was counted; more than that is a failure."""

    async def is_so() -> bool:
        found = await usage(service, tenant_id)
        for name, value in found.items():
            assert value <= expected.get(name, 0), found
        return found == expected

    try:
        await until(is_so)
    except TimeoutError as error:
        raise AssertionError(f"{await usage(service, tenant_id)}, not {expected}") from error


async def spend(each: Talk, task: TakenTask) -> None:
    await each.executor.report(task, "completed", {"response": "done", **SPENT})
    await each.executor.finish(task)


def spent(times: int) -> dict[str, Any]:
    """What is counted of so many tasks that each spent as `spend` says."""
    return {"input_tokens": 10 * times, "output_tokens": 5 * times, "cost": times / 4}
