"""A stream read by a consumer group: taken, handled, then acked and deleted, so it never grows.

What a reader took and did not finish (it died, or its reply was lost) stays pending and is claimed
by whoever looks, itself included. Handling the same entry twice must therefore be harmless.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions

from common.domain.errors import OrchestratorError
from common.queues.redis import Redis, connect, meaning_of, unwrap
from common.queues.scripts import RETIRE_CONSUMER


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream, as it was added."""

    id: bytes
    fields: Mapping[bytes, bytes]


class ConsumerStream:
    """One consumer's view of a stream. Only `read` blocks; it has a connection of its own."""

    def __init__(self, redis: Redis, stream: str, group: str, consumer: str) -> None:
        self._redis = redis
        self.name = stream
        self._group = group
        self._consumer = consumer
        self._reader: Any = None
        self.has_more_to_claim = False  # the last claim took a page, and not the last one

    async def ensure_group(self) -> None:
        """Makes stream and group where they are missing, from the stream's very beginning."""
        await create_group(self._redis, self.name, self._group)

    async def read(self, count: int, wait_seconds: float) -> list[Entry]:
        """At most `count` new entries; waits for the first up to `wait_seconds`.

        Raises:
            RedisUnavailable: then entries may have been taken; `claim` finds them.
        """
        if self._reader is None:
            # A reply may take as long as the wait; only then is silence a fault.
            timeout = wait_seconds + self._redis.socket_timeout
            self._reader = connect(self._redis.url, socket_timeout=timeout, max_connections=1)
        block = max(1, int(wait_seconds * 1000))
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count)
        try:
            reply = await self._reader.execute_command(
                *command, "BLOCK", block, "STREAMS", self.name, ">"
            )
        except exceptions.ResponseError as error:
            if not is_missing_group(error):
                raise meaning_of(error) or error from error
            await self.ensure_group()
            return []
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            raise meaning_of(error) or error from error
        return [entry for _, items in reply or () for entry in _entries(items)]

    async def unfinished(self, count: int) -> list[Entry]:
        """What this consumer took and has not finished, at most `count`, the oldest first."""
        try:
            reply = await self._redis.call(
                *("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", count),
                *("STREAMS", self.name, "0"),
            )
        except exceptions.ResponseError as error:
            if not is_missing_group(error):
                raise
            return []
        return [entry for _, items in reply or () for entry in _entries(items)]

    async def deliveries(self, entry: Entry) -> int:
        """How often an entry has been taken without being finished; 0 once it is."""
        pending = await self._redis.call(
            *("XPENDING", self.name, self._group, entry.id, entry.id, 1)
        )
        return int(pending[0][3]) if pending else 0

    async def backlog_ms(self) -> int:
        """For how long the oldest entry has waited to be handled, by Redis's clock; 0 if none."""
        (seconds, micros), oldest = await self._redis.call_all(
            [("TIME",), ("XRANGE", self.name, "-", "+", "COUNT", 1)]
        )
        added = [int(entry.id.partition(b"-")[0]) for entry in _entries(oldest)]
        return max(0, int(seconds) * 1000 + int(micros) // 1000 - added[0]) if added else 0

    async def claim(self, min_idle_seconds: float, count: int) -> list[Entry]:
        """Takes over entries that nobody has touched for so long, at most `count`."""
        start = b"0-0"
        try:
            while True:
                start, items, *_ = await self._redis.call(
                    *("XAUTOCLAIM", self.name, self._group, self._consumer),
                    *(int(min_idle_seconds * 1000), start, "COUNT", count),
                )
                self.has_more_to_claim = start != b"0-0"
                if items or not self.has_more_to_claim:  # Redis looks at so many, then stops
                    break
        except exceptions.ResponseError as error:
            if not is_missing_group(error):
                raise
            await self.ensure_group()
            return []
        if any(not item or not item[1] for item in items):
            await self._forget_deleted(count)
        return _entries(items)

    async def _forget_deleted(self, count: int) -> None:
        """Acks entries that were deleted while pending; Redis 7 does so itself, 6.2 does not."""
        pending = await self._redis.call(
            *("XPENDING", self.name, self._group, "-", "+", count, self._consumer)
        )
        ids = [item[0] for item in pending]
        found = await self._redis.call_all([("XRANGE", self.name, id_, id_) for id_ in ids])
        gone = [id_ for id_, entries in zip(ids, found, strict=True) if not entries]
        if gone:
            await self._redis.call("XACK", self.name, self._group, *gone)

    async def finish(self, ids: Sequence[bytes]) -> None:
        """Deletes and acks what has been handled.

        In this order: cut off in between, the next claim clears what is left; the other way round
        nobody would find it again.
        """
        if ids:
            await self._redis.call_all(
                [("XDEL", self.name, *ids), ("XACK", self.name, self._group, *ids)]
            )

    async def waiting(self) -> tuple[int, int]:
        """How many entries are taken but not finished, and how many nobody has taken yet."""
        pending, length = await self._redis.batch(
            [("XPENDING", self.name, self._group), ("XLEN", self.name)]
        )
        taken = 0 if isinstance(pending, Exception) else int(pending[0])
        return taken, max(0, unwrap(length) - taken)

    async def retire_dead(self, idle_ms: int) -> int:
        """Deletes consumers that are long silent and have nothing pending; says how many."""
        consumers = await self._consumers()
        dead = [each["name"] for each in consumers if each["idle"] >= idle_ms]
        return sum([await self._retire(name) for name in dead if name != self._consumer])

    async def _consumers(self) -> list[dict[str, Any]]:
        try:
            reply = await self._redis.call("XINFO", "CONSUMERS", self.name, self._group)
        except exceptions.ResponseError as error:
            if not is_missing_group(error):
                raise
            return []
        return [consumer_of(flat) for flat in reply]

    async def _retire(self, consumer: str) -> int:
        return int(await self._redis.run(RETIRE_CONSUMER, [self.name], self._group, consumer))

    async def leave(self) -> None:
        """Ends reading for good: this consumer goes, unless another has to take over from it."""
        await self.close()
        try:
            await self._retire(self._consumer)
        except (OrchestratorError, exceptions.ResponseError):
            return  # it is retired later, by whoever looks

    async def close(self) -> None:
        """Ends the reading connection."""
        if self._reader is not None:
            await self._reader.aclose()
            self._reader = None


async def create_group(redis: Redis, stream: str, group: str) -> None:
    """Makes a consumer group from id 0: what was added before it exists is not skipped."""
    try:
        await redis.call("XGROUP", "CREATE", stream, group, "0", "MKSTREAM")
    except exceptions.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def is_missing_group(error: exceptions.ResponseError) -> bool:
    """Whether the stream or its group is gone: a flush, or a Redis that lost its data."""
    return "NOGROUP" in str(error) or "UNBLOCKED" in str(error) or "no such key" in str(error)


def consumer_of(flat: Sequence[Any]) -> dict[str, Any]:
    """A consumer as XINFO tells of it: `name`, `pending`, and `idle` (ms) among others."""
    facts = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
    return {**facts, "name": facts["name"].decode()}


def _entries(items: Sequence[Any]) -> list[Entry]:
    """Entries of a reply; one deleted while it was pending comes without id or fields."""
    return [Entry(item[0], fields_of(item[1])) for item in items if item and item[1]]


def fields_of(flat: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """An entry's fields, which Redis sends as one flat list."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
