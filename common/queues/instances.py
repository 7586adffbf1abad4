"""Who else is there: each instance says every few seconds that it lives, and what it holds."""

from dataclasses import dataclass

import orjson

from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.scripts import BEAT

# A dead instance is out of every count within 15 s: others look every three seconds, or a bit more.
DEAD_AFTER_MS = 11_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCounts:
    """Sums over all living instances."""

    instances: int
    connections: int
    sessions: int


class Instances:
    """The register of living instances."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = [keys.instances, keys.instance_facts]

    async def beat(self, instance_id: str, connections: int, sessions: int) -> ClusterCounts:
        """Says that this instance lives; answers what all of them hold together."""
        facts = orjson.dumps({"connections": connections, "sessions": sessions})
        living = await self._redis.run(BEAT, self._keys, DEAD_AFTER_MS, instance_id, facts)
        held = [orjson.loads(each) for each in living]
        return ClusterCounts(
            instances=len(held),
            connections=sum(each["connections"] for each in held),
            sessions=sum(each["sessions"] for each in held),
        )

    async def leave(self, instance_id: str) -> None:
        """This instance stops."""
        beats, facts = self._keys
        await self._redis.call_all([("ZREM", beats, instance_id), ("HDEL", facts, instance_id)])
