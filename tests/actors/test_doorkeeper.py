"""Who is let in: many at once in one go; no place is lost with the actor, or with Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from actors import doorkeeper
from actors.doorkeeper import DoorkeeperActor, Enter, Renew, Settle
from actors.loop_actor import LoopRef
from actors.restart_policy import RestartPolicy
from actors.supervisor import ChildSpec, SupervisorActor
from common.domain.errors import RateLimited, RedisUnavailable
from common.domain.ids import TenantId
from common.failpoints import armed
from common.queues.connections import Connections, Place
from common.queues.handshakes import BadHandshakes
from common.queues.keys import Keys
from common.queues.redis import Redis
from tests.support.follower import eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

ACME = TenantId("acme")
HOME = "192.0.2.1"


class Door:
    """A doorkeeper under supervision, and what it looks after."""

    def __init__(self, url: str, prefix: str) -> None:
        self.redis, self.keys = Redis(url), Keys(prefix)
        self.handshakes = BadHandshakes(self.redis, self.keys, 2)
        self.connections = Connections(self.redis, self.keys, self.handshakes)
        self.supervisor = SupervisorActor.start(
            lambda _: None, policy=RestartPolicy(first_delay=0.001)
        )
        self.keeper: LoopRef = self.supervisor.spawn(
            ChildSpec("doorkeeper", DoorkeeperActor, (self.connections, self.handshakes))
        )

    async def come(self, *places: Place) -> int:
        """How many of them are let in."""
        asked = (self.keeper.ask(Enter(place)) for place in places)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, RateLimited) for each in answers if each is not None), answers
        return answers.count(None)

    def go(self, *places: Place) -> None:
        for place in places:
            self.connections.leave(place)
            self.keeper.notify(Settle())

    async def counted(self) -> int:
        return int(await self.redis.call("ZCARD", self.keys.connections_of_tenant(ACME)))


@asynccontextmanager
async def door(url: str, prefix: str) -> AsyncIterator[Door]:
    made = Door(url, prefix)
    try:
        yield made
    finally:
        await made.supervisor.stop()
        await made.redis.close()


def places(count: int, limit: int) -> list[Place]:
    return [
        Place(tenant_id=ACME, of_tenant=limit, address=None, of_address=None) for _ in range(count)
    ]


async def test_of_many_who_come_at_once_as_many_are_let_in_as_may(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        door(redis_server.url, prefix) as one,
        door(redis_server.url, prefix) as other,
    ):
        first, second = places(40, 20), places(40, 20)
        let_in = await asyncio.gather(one.come(*first), other.come(*second))
        assert sum(let_in) == 20
        one.go(*first)
        other.go(*second)
        await asyncio.gather(one.keeper.ask(Settle()), other.keeper.ask(Settle()))
        assert await one.come(*places(21, 20)) + await other.come(*places(1, 20)) == 20


async def test_who_leaves_makes_room_for_who_comes_next(
    redis_server: RedisServer, prefix: str
) -> None:
    async with door(redis_server.url, prefix) as one:
        for _ in range(20):
            (mine,) = places(1, 1)
            assert await one.come(mine) == 1
            one.go(mine)  # nothing is waited for


async def test_a_doorkeeper_that_fails_forgets_nobody(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorkeeper, "RENEW_EVERY", 0.02)
    async with door(redis_server.url, prefix) as one:
        mine = places(3, 5)
        assert await one.come(*mine) == 3
        with armed("doorkeeper.on_batch=raise:1"):
            one.go(mine[0])
            await eventually(lambda: has_restarted(one))
        await one.redis.call("DEL", one.keys.connections_of_tenant(ACME))

        async def is_renewed() -> bool:
            return await one.counted() == 2

        await eventually(is_renewed)
        assert await one.come(*places(4, 5)) == 3


async def has_restarted(one: Door) -> bool:
    return one.keeper.restarts == 1


async def test_one_that_stops_leaves_no_places_behind(
    redis_server: RedisServer, prefix: str
) -> None:
    async with door(redis_server.url, prefix) as other:
        async with door(redis_server.url, prefix) as one:
            assert await one.come(*places(5, 5)) == 5
            assert await other.come(*places(1, 5)) == 0
        assert await other.come(*places(5, 5)) == 5


async def test_leases_that_may_have_ended_are_put_back_before_anyone_is_let_in(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door(redis_server.url, prefix) as one:
        assert await one.come(*places(2, 2)) == 2
        await one.redis.call("DEL", one.keys.connections_of_tenant(ACME))
        monkeypatch.setattr(doorkeeper, "LEASE_MS", 0)  # it was frozen for so long
        assert await one.come(*places(1, 2)) == 0


async def test_while_redis_is_away_nobody_is_let_in_and_afterwards_all_is_as_before(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorkeeper, "RENEW_EVERY", 0.02)
    monkeypatch.setattr(doorkeeper, "RENEW_AGAIN", 0.02)
    async with Proxy(redis_server.port) as proxy, door(proxy.url, prefix) as one:
        mine = places(3, 3)
        assert await one.come(*mine) == 3
        await proxy.refuse()
        (late,) = places(1, 9)
        with pytest.raises(RedisUnavailable):
            await one.keeper.ask(Enter(late))
        one.go(late, mine[0])
        for _ in range(2):
            one.handshakes.count(HOME)
            one.keeper.notify(Settle())
        with pytest.raises(RateLimited):
            one.handshakes.check(HOME)
        await proxy.heal()

        async def is_as_before() -> bool:
            try:
                return await one.counted() == 2
            except RedisUnavailable:
                return False

        await eventually(is_as_before)
        assert await one.come(*places(2, 3)) == 1


async def test_an_outage_is_told_once_for_each_of_what_it_means_whichever_comes_first(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("RENEW_EVERY", "RENEW_AGAIN"):
        monkeypatch.setattr(doorkeeper, pause, 3600.0)  # it renews when the test says so
    both = ["bad_handshakes.counted_alone", "leases.not_renewed"]
    async with Proxy(redis_server.port) as proxy, door(proxy.url, prefix) as one:
        assert await one.come(*places(1, 1)) == 1
        for outage in (both, both[::-1]):
            await proxy.refuse()
            with capture_logs() as lines:
                for line in 2 * outage:
                    if line == both[0]:
                        one.handshakes.count(HOME)
                    await one.keeper.ask(Settle() if line == both[0] else Renew())
            assert [line["event"] for line in lines if line["event"] in both] == outage
            await proxy.heal()
            await eventually(lambda: is_reachable(one))
            await one.keeper.ask(Renew())


async def is_reachable(one: Door) -> bool:
    try:
        await one.counted()
    except RedisUnavailable:
        return False
    return True
