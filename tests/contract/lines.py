"""The lines in which tasks wait, and the work streams at their end: how full, and of what."""

from typing import Any

from tests.contract.talk import PRIORITIES, Talk, until
from tests.support.client import Address
from tests.support.fake_executor import TakenTask


def limited(**limits: Any) -> dict[str, Any]:
    """Settings under which tenant `acme` has these limits alone, and the others none."""
    return {"tiers": {"limited": limits}, "tenants": {"acme": {"tier": "limited"}}}


async def waiting(each: Talk) -> tuple[int, int]:
    """Entries of the work streams that nobody has taken, and those in workers' hands."""
    pipeline = each.redis.pipeline(transaction=True)
    for priority in PRIORITIES:
        pipeline.xlen(each.executor.stream(priority))
        pipeline.xpending(each.executor.stream(priority), each.executor.GROUP)
    replies = await pipeline.execute()
    taken = sum(found["pending"] for found in replies[1::2])
    return sum(replies[::2]) - taken, taken


async def in_streams(each: Talk) -> list[str]:
    """The tasks in the work streams, high before normal before low."""
    found: list[str] = []
    for priority in PRIORITIES:
        entries = await each.redis.xrange(each.executor.stream(priority))
        found += [fields[b"task_id"].decode() for _, fields in entries]
    return found


async def until_in_streams(each: Talk, *task_ids: str) -> None:
    async def are_there() -> bool:
        return set(task_ids) <= set(await in_streams(each))

    await until(are_there)


async def until_waiting(each: Talk, untaken: int) -> None:
    async def is_so() -> bool:
        return (await waiting(each))[0] == untaken

    await until(is_so)


async def a_turn_was_taken(each: Talk, tenant_id: str = "passer-by") -> None:
    """Returns once somebody else's message has come and gone: the lines were looked at."""
    task_id = await each.sent(f"{tenant_id}/s-1", priority="high")
    task = await each.executor.take()
    assert task.task_id == task_id
    await run(each, task)


async def run(each: Talk, task: TakenTask) -> None:
    await each.executor.report(task, "started")
    await each.executor.complete(task)
    await each.handled(task)


async def accepted(service: Address, count: int, tenant_id: str = "acme") -> None:
    """So many messages of a tenant are taken, each of a session of its own."""
    for number in range(count):
        answer = await service.send(f"{tenant_id}/s-{number}")
        assert answer.status == 202, answer


async def filled(each: Talk, prefetch: int) -> None:
    """The work streams are full with tasks of tenant `x`."""
    for number in range(prefetch):
        await each.sent(f"x/s-{number}")
    assert await waiting(each) == (prefetch, 0)
