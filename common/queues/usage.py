"""What tenants use, by UTC day: counted with each task's end, once (`lua/take_turns.lua`)."""

from collections.abc import Mapping
from datetime import date

from common.domain.ids import TenantId
from common.queues.keys import Keys
from common.queues.redis import Redis

EPOCH = date(1970, 1, 1)
COUNTS = (
    "requests",
    "completed",
    "failed",
    "cancelled",
    "timeout",
    "input_tokens",
    "output_tokens",
)


class Usage:
    """The days of tenants, each kept for 90 days after it was last added to."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def of(self, tenant_id: TenantId, day: date) -> Mapping[str, int | float]:
        """What a tenant used on a UTC day: messages accepted that day, tasks ended that
        day by status, with their tokens and cost. All zero where nothing is known."""
        key = self._keys.usage(tenant_id, (day - EPOCH).days)
        counts = await self._redis.call("HMGET", key, *COUNTS, "cost")
        found: dict[str, int | float] = {
            name: int(float(count or 0)) for name, count in zip(COUNTS, counts[:-1], strict=True)
        }
        found["cost"] = float(counts[-1] or 0)
        return found
