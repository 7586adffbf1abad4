"""Which callbacks instances have taken and not finished, as Redis has it."""

from tests.support.client import Address
from tests.support.fake_executor import FakeExecutor, TakenTask


async def held_by(executor: FakeExecutor, task: TakenTask) -> dict[str, int]:
    """How many callbacks each instance has taken and not finished."""
    stream = task.action["callback_stream"]
    (group,) = await executor.redis.xinfo_groups(stream)
    consumers = await executor.redis.xinfo_consumers(stream, group["name"])
    return {each["name"].decode(): each["pending"] for each in consumers if each["pending"]}


async def nothing_is_held(executor: FakeExecutor, task: TakenTask) -> bool:
    return await held_by(executor, task) == {}


async def instance_id(address: Address) -> str:
    name: str = (await address.get("/ws/stats")).json["instance"]["instance_id"]
    return name
