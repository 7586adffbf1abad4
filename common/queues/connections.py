"""Who is connected, by tenant and by address: counted over all instances, as sets of leases.

No counter that a crash could leave wrong: each set holds the ids of connections, each with the end
of its lease by Redis's clock. The instance that holds a connection renews it every `RENEW_EVERY`
seconds; those of an instance that is gone are out of every count when their leases are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.domain.errors import OrchestratorError, RateLimited
from common.domain.ids import TenantId, new_id
from common.queues.handshakes import BadHandshakes
from common.queues.keys import Keys
from common.queues.redis import Redis, meaning_of
from common.queues.scripts import ENTER_CONNECTION, RENEW_CONNECTIONS, Command

LEASE_MS = 12_000  # a dead instance's connections are out of every count within 15 s
RENEW_EVERY = 4.0  # seconds: two renewals may fail before a lease ends
CHUNK = 250  # ids of one renewal, lest Redis or the loop stand still for thousands
MAX_LEAVING = 100_000  # of which Redis has not heard yet; beyond, their leases just end
COME_BACK = 5  # seconds; when a connection of others ends nobody knows


@dataclass(slots=True, eq=False, kw_only=True)
class Place:
    """One connection's place among those of its tenant and of its address; None: not limited."""

    tenant_id: TenantId
    of_tenant: int | None
    address: str | None
    of_address: int | None
    connection_id: str = field(default_factory=new_id)
    has_left: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether there is anything to ask Redis."""
        return self.of_tenant is not None or None not in (self.address, self.of_address)


@dataclass(frozen=True, slots=True)
class Among:
    """A set that a place is one of, how many it may hold, and what is said when it is full."""

    key: str
    limit: int
    when_full: str


class Connections:
    """The connections of this instance, in the counts of all.

    `enter`, `settle` and `renew` are for one caller, one after the other (`DoorkeeperActor`);
    `leave` is for anyone, at any time.
    """

    def __init__(self, redis: Redis, keys: Keys, handshakes: BadHandshakes) -> None:
        self._redis = redis
        self._keys = keys
        self._handshakes = handshakes
        self._held: dict[str, set[str]] = {}  # ids by the key of their set
        self._leaving: list[Place] = []

    async def enter(self, places: Sequence[Place]) -> list[Exception | None]:
        """Takes places; each is answered with None, or why not. Those who left go out before.

        Exact over all instances, one script a place. One that has left already is not taken.

        Raises:
            RedisUnavailable: none is known to be taken, and none stays so.
        """
        coming = [place for place in places if not place.has_left]
        answers: dict[Place, Exception | None] = dict.fromkeys(places)
        try:
            results = await self._exchange([self._entrance(place) for place in coming])
        except OrchestratorError:
            self._remember_leaving(coming)  # any of them may be in
            raise
        for place, result in zip(coming, results, strict=True):
            answers[place] = self._answer(place, result)
        return [answers[place] for place in places]

    def leave(self, place: Place) -> None:
        """Gives a place back, taken or not; safe to repeat. Redis hears of it by `settle`."""
        if place.has_left:
            return
        place.has_left = True
        if self._forget(place):
            self._remember_leaving([place])

    async def settle(self) -> None:
        """Tells Redis who has left. Raises RedisUnavailable; it is told the next time, then."""
        await self._exchange([])

    async def renew(self) -> None:
        """Renews the lease of each place that is held, and puts back what is missing.

        Raises:
            RedisUnavailable.
        """
        for command in list(self._renewals()):
            await self._redis.call(*command)
        await self.settle()

    async def leave_all(self) -> None:
        """This instance stops: its places are free at once. Raises RedisUnavailable."""
        held, self._held = self._held, {}
        await self._redis.call_all([("ZREM", key, *held[key]) for key in held])
        await self.settle()

    # Taking a place.

    def _entrance(self, place: Place) -> Command:
        sets = self._sets_of(place)
        handshakes = "" if place.address is None else self._handshakes.per_minute or ""
        return ENTER_CONNECTION.call(
            [self._keys.bad_handshakes(place.address or ""), *(each.key for each in sets)],
            *(place.connection_id, LEASE_MS, handshakes),
            *(each.limit for each in sets),
        )

    def _sets_of(self, place: Place) -> list[Among]:
        sets = []
        if place.of_tenant is not None:
            key = self._keys.connections_of_tenant(place.tenant_id)
            full = "The tenant has as many connections as it may have."
            sets.append(Among(key, place.of_tenant, full))
        if place.address is not None and place.of_address is not None:
            key = self._keys.connections_of_address(place.address)
            full = "As many connections come from this address as may."
            sets.append(Among(key, place.of_address, full))
        return sets

    def _answer(self, place: Place, result: Any) -> Exception | None:
        """None if it is in."""
        if isinstance(result, Exception):
            self._remember_leaving([place])
            return meaning_of(result) or result
        verdict, *waits = result
        if verdict > 0:
            full = self._sets_of(place)[verdict - 1]
            return RateLimited(full.when_full, limit=full.limit, reset=COME_BACK)
        if verdict < 0:
            self._handshakes.heard(str(place.address), self._handshakes.per_minute or 0, waits[0])
            return self._handshakes.refusal(waits[0] / 1000)
        if place.has_left:  # while Redis was asked
            self._remember_leaving([place])
        else:
            for each in self._sets_of(place):
                self._held.setdefault(each.key, set()).add(place.connection_id)
        return None

    # Keeping it, and giving it back.

    def _renewals(self) -> Iterator[Command]:
        keys: list[str] = []
        args: list[str | int] = []
        room = CHUNK
        for key, ids in self._held.items():
            waiting = list(ids)
            while waiting:
                some, waiting = waiting[:room], waiting[room:]
                keys.append(key)
                args += [len(some), *some]
                room -= len(some)
                if not room:
                    yield RENEW_CONNECTIONS.call(keys, LEASE_MS, *args)
                    keys, args, room = [], [], CHUNK
        if keys:
            yield RENEW_CONNECTIONS.call(keys, LEASE_MS, *args)

    def _forget(self, place: Place) -> bool:
        """Whether it was held."""
        was_held = False
        for each in self._sets_of(place):
            ids = self._held.get(each.key, set())
            was_held |= place.connection_id in ids
            ids.discard(place.connection_id)
            if not ids:
                self._held.pop(each.key, None)
        return was_held

    def _remember_leaving(self, places: Sequence[Place]) -> None:
        self._leaving += places[: MAX_LEAVING - len(self._leaving)]

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Sends the commands behind the news of who has left; answers theirs."""
        leaving, self._leaving = self._leaving, []
        by_key: dict[str, list[str]] = {}
        for place in leaving:
            for each in self._sets_of(place):
                by_key.setdefault(each.key, []).append(place.connection_id)
        gone: list[Command] = [("ZREM", key, *ids) for key, ids in by_key.items()]
        try:
            return (await self._redis.batch([*gone, *commands]))[len(gone) :]
        except OrchestratorError:
            self._remember_leaving(leaving)
            raise
