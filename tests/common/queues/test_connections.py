"""Places among the connections of a tenant and of an address: exact over all instances."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from common.domain.errors import RateLimited, RedisUnavailable
from common.domain.ids import TenantId
from common.queues.connections import CHUNK, LEASE_MS, Connections, Place
from common.queues.handshakes import BadHandshakes
from common.queues.keys import Keys
from common.queues.redis import Redis
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer

ACME = TenantId("acme")
HOME = "192.0.2.1"


class Instance(Connections):
    """One instance's connections, and the moves of a test."""

    def __init__(
        self, url: str, prefix: str, bad_handshakes: int = 60, socket_timeout: float = 30.0
    ) -> None:
        self.redis, self.keys = Redis(url, socket_timeout=socket_timeout), Keys(prefix)
        self.handshakes = BadHandshakes(self.redis, self.keys, bad_handshakes)
        super().__init__(self.redis, self.keys, self.handshakes)

    async def come(self, place: Place) -> None:
        """Raises why it is not taken."""
        (refusal,) = await self.enter([place])
        if refusal is not None:
            raise refusal

    async def go(self, *places: Place) -> None:
        for place in places:
            self.leave(place)
        await self.settle()

    async def counted(self, tenant_id: str = ACME, address: str = HOME) -> tuple[int, int]:
        """Of the tenant, and of the address."""
        keys = self.keys
        tenant = await self.redis.call("ZCARD", keys.connections_of_tenant(TenantId(tenant_id)))
        return tenant, await self.redis.call("ZCARD", keys.connections_of_address(address))

    async def stored(self) -> list[bytes]:
        keys: list[bytes] = await self.redis.call("KEYS", f"{self.keys.prefix}*")
        return keys

    async def end_leases(self) -> None:
        """As if their time had come: Redis's clock cannot be moved, so their ends are."""
        for key in await self.stored():
            ids = await self.redis.call("ZRANGE", key, 0, -1)
            await self.redis.call("ZADD", key, *(part for id_ in ids for part in (1, id_)))


@asynccontextmanager
async def instances(url: str, prefix: str, count: int = 1, **more: Any) -> AsyncIterator[Any]:
    made = [Instance(url, prefix, **more) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            await each.redis.close()


def place(tenant: int | None = None, address: int | None = None, *, at: str | None = HOME) -> Place:
    return Place(tenant_id=ACME, of_tenant=tenant, address=at, of_address=address)


async def taken(instance: Instance, places: Sequence[Place]) -> int:
    return (await instance.enter(places)).count(None)


@pytest.mark.parametrize("limits", [(3, None), (None, 3), (3, 9), (9, 3)])
async def test_as_many_are_let_in_as_the_limit_says_and_not_one_more(
    redis_server: RedisServer, prefix: str, limits: tuple[int | None, int | None]
) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        first, second, third = [place(*limits) for _ in range(3)]
        for each in (first, second, third):
            await one.come(each)
        with pytest.raises(RateLimited) as caught:
            await one.come(place(*limits))
        assert (caught.value.limit, caught.value.remaining) == (3, 0)
        assert caught.value.retry_after == caught.value.reset >= 1
        await one.go(second)
        await one.come(place(*limits))
        assert await taken(one, [place(*limits)]) == 0


async def test_who_is_refused_by_one_limit_is_not_counted_by_the_other(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        await one.come(place(tenant=5, address=1))
        with pytest.raises(RateLimited, match="address"):
            await one.come(place(tenant=5, address=1))
        assert await one.counted() == (1, 1)
        with pytest.raises(RateLimited, match="tenant"):
            await one.come(place(tenant=1, address=5))
        assert await one.counted() == (1, 1)


async def test_fifty_who_come_to_two_instances_at_once_get_exactly_the_places_there_are(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix, 2) as both:
        coming = [
            taken(both[number % 2], [place(tenant=20, address=33, at=f"192.0.2.{number % 2}")])
            for number in range(50)
        ]
        assert sum(await asyncio.gather(*coming)) == 20
        assert (await both[0].counted())[0] == 20


async def test_without_a_limit_nothing_is_kept(redis_server: RedisServer, prefix: str) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        for each in (place(), place(address=5, at=None)):
            assert not each.is_counted
            await one.come(each)
        await one.renew()
        assert await one.stored() == []


async def test_what_was_asked_twice_is_one_place(redis_server: RedisServer, prefix: str) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        mine = place(tenant=1, address=1)
        await one.come(mine)
        await one.come(mine)  # the answer to the first had been lost
        assert await one.counted() == (1, 1)
        await one.go(mine)
        await one.go(mine)
        assert await one.counted() == (0, 0)


async def test_leases_that_nobody_renews_end_and_their_places_are_free(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix, 2) as (dead, other):
        await dead.come(place(tenant=1, address=1))
        assert await taken(other, [place(tenant=1)]) == 0
        for key in await other.stored():
            assert 0 < await other.redis.call("PTTL", key) <= LEASE_MS
        await other.end_leases()
        await other.come(place(tenant=1, address=1))
        assert await other.counted() == (1, 1)


async def test_renewing_keeps_places_and_puts_back_those_that_were_lost(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix, 2) as (one, other):
        mine = [place(tenant=2, address=5) for _ in range(2)]
        assert await taken(one, mine) == 2
        await one.end_leases()
        await one.renew()
        assert await taken(other, [place(tenant=2)]) == 0
        await one.redis.call("DEL", *await one.stored())  # Redis lost all it had
        await one.renew()
        assert await one.counted() == (2, 2)
        await one.go(*mine)
        assert await one.stored() == []


async def test_thousands_of_places_are_renewed_bit_by_bit(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        count = 2 * CHUNK + 7
        many = [place(tenant=count, address=5, at=f"a-{number // 5}") for number in range(count)]
        assert await taken(one, many) == count
        await one.redis.call("DEL", *await one.stored())
        await one.renew()
        assert (await one.counted())[0] == count
        assert await one.counted(address="a-0") == (count, 5)
        await one.leave_all()
        assert await one.stored() == []


async def test_who_leaves_before_being_let_in_takes_no_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        before, while_asked = place(tenant=1), place(tenant=1)
        one.leave(before)
        await one.come(before)
        asked = asyncio.create_task(one.come(while_asked))
        await asyncio.sleep(0)  # it is on its way
        one.leave(while_asked)
        await asked
        await one.come(place(tenant=1))  # nobody had to be told: who left goes out first


async def test_places_of_which_no_answer_came_are_given_back(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        instances(proxy.url, prefix, socket_timeout=2.0) as (one,),
        instances(redis_server.url, prefix) as (other,),
    ):
        await one.come(place(tenant=5))
        leaving, lost = place(tenant=5), place(tenant=5)
        await one.come(leaving)
        one.leave(leaving)
        proxy.blackhole()
        with pytest.raises(RedisUnavailable):
            await one.come(lost)
        one.leave(lost)
        with pytest.raises(RedisUnavailable):
            await one.renew()
        await proxy.heal()
        async with asyncio.timeout(10):
            while True:  # for a moment Redis still counts as away
                try:
                    await one.settle()
                    break
                except RedisUnavailable:
                    await asyncio.sleep(0.05)
        assert (await other.counted())[0] == 1


async def test_an_address_kept_out_elsewhere_is_refused_here_and_remembered(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix, 2, bad_handshakes=2) as (one, other):
        for _ in range(2):
            one.handshakes.count(HOME)
        await one.handshakes.share()
        other.handshakes.check(HOME)  # it does not know yet
        with pytest.raises(RateLimited, match="handshakes"):
            await other.come(place(tenant=5))
        with pytest.raises(RateLimited, match="handshakes") as caught:
            other.handshakes.check(HOME)
        assert (caught.value.limit, caught.value.remaining) == (2, 0)
        assert 50 < caught.value.retry_after <= 60
        assert await other.counted() == (0, 0)
        await other.come(place(tenant=5, at="192.0.2.2"))


async def test_a_key_that_is_no_set_is_the_trouble_of_its_tenant_alone(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instances(redis_server.url, prefix) as (one,):
        await one.redis.call("SET", one.keys.connections_of_tenant(ACME), "no set")
        fine = Place(tenant_id=TenantId("other"), of_tenant=1, address=None, of_address=None)
        refused, let_in = await one.enter([place(tenant=1), fine])
        assert isinstance(refused, Exception)
        assert "WRONGTYPE" in str(refused)
        assert let_in is None
