"""Bad handshakes of each address: who knocks wrongly too often is not listened to for a while."""

import math
import time
from collections import Counter
from dataclasses import dataclass

import structlog

from common.domain.errors import RateLimited
from common.queues.keys import Keys
from common.queues.redis import Redis, unwrap
from common.queues.scripts import COUNT_BAD_HANDSHAKES

log = structlog.get_logger(__name__)

MINUTE_MS = 60_000
MAX_REMEMBERED = 10_000  # addresses; for a new one, the one that was heard of longest ago goes


@dataclass(slots=True)
class Minute:
    """An address's minute, which began with the first of its bad handshakes."""

    count: int
    ends_at: float  # by this instance's monotonic clock


class BadHandshakes:
    """Counts refused upgrades of addresses, over all instances, and remembers who had too many.

    What is counted here holds at once and whether or not Redis answers; what other instances have
    counted is heard whenever this one tells its own (`share`), or lets a connection in. Looking
    an address up costs nothing but that. `per_minute` None counts nothing and refuses nobody.
    """

    def __init__(self, redis: Redis, keys: Keys, per_minute: int | None) -> None:
        self.per_minute = per_minute
        self._redis = redis
        self._keys = keys
        self._minutes: dict[str, Minute] = {}
        self._untold: Counter[str] = Counter()

    def check(self, address: str) -> None:
        """Raises RateLimited until the minute of an address that had too many is over."""
        if left := self._kept_out(address):
            raise self.refusal(left)

    def refusal(self, seconds: float) -> RateLimited:
        """What an address is told that has so long to wait."""
        return RateLimited(
            "Too many bad handshakes came from this address.",
            limit=self.per_minute or 0,
            reset=math.ceil(seconds),
        )

    def count(self, address: str) -> None:
        """One more was refused. To be told to the other instances by `share`, soon."""
        if self.per_minute is None:
            return
        now = time.monotonic()
        minute = self._minutes.get(address)
        if minute is None or minute.ends_at <= now:
            minute = Minute(0, now + MINUTE_MS / 1000)
        self._remember(address, Minute(minute.count + 1, minute.ends_at))
        if len(self._untold) < MAX_REMEMBERED:
            self._untold[address] += 1

    async def share(self) -> None:
        """Tells what was counted here since, and hears what all have counted together.

        Raises:
            RedisUnavailable: what was counted here still holds here.
        """
        told, self._untold = self._untold, Counter()
        results = await self._redis.batch(
            [
                COUNT_BAD_HANDSHAKES.call([self._keys.bad_handshakes(address)], count, MINUTE_MS)
                for address, count in told.items()
            ]
        )
        for address, result in zip(told, results, strict=True):
            count, left_ms = unwrap(result)
            self.heard(address, count, left_ms)

    def heard(self, address: str, count: int, left_ms: int) -> None:
        """All instances have counted so many, in a minute that ends in so many ms."""
        now = time.monotonic()
        minute = self._minutes.get(address)
        ours = 0 if minute is None or minute.ends_at <= now else minute.count
        self._remember(address, Minute(max(ours, count), now + left_ms / 1000))

    def _remember(self, address: str, minute: Minute) -> None:
        was_kept_out = self._kept_out(address)
        self._minutes.pop(address, None)
        if len(self._minutes) >= MAX_REMEMBERED:
            del self._minutes[next(iter(self._minutes))]
        self._minutes[address] = minute
        if self._kept_out(address) and not was_kept_out:
            log.warning("address.kept_out", address=address, bad_handshakes=minute.count)

    def _kept_out(self, address: str) -> float:
        """For how many seconds more; 0 if it is listened to."""
        minute = self._minutes.get(address)
        if minute is None or self.per_minute is None or minute.count < self.per_minute:
            return 0.0
        return max(0.0, minute.ends_at - time.monotonic())
