"""Who knocks wrongly too often is not listened to until a minute is over."""

import contextlib

from websockets.exceptions import InvalidStatus

from tests.orchestrator.crowds import (
    ELSEWHERE,
    HOME,
    LIMIT,
    PROXY,
    assert_too_many,
    coming_from,
    crowd,
    event_stream,
    refused,
)
from tests.support.client import close_code
from tests.support.follower import eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import Running, running_service


async def knock_wrongly(service: Running, times: int, address: str = HOME) -> None:
    for _ in range(times):
        response = await refused(service, "acme/s", address, offset="x")
        assert response.status_code == 400


async def test_after_so_many_bad_handshakes_an_address_gets_429_for_any_other(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_bad_handshakes_per_minute": LIMIT}
    async with running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as service:
        await knock_wrongly(service, LIMIT - 1)
        async with crowd(service, 1):
            pass
        await knock_wrongly(service, 1)
        for session, query in (("acme/s", {}), ("acme/s", {"offset": "x"}), ("a{b}/s", {})):
            response = await refused(service, session, **query)
            assert_too_many(response, LIMIT)
            assert 50 < int(response.headers["Retry-After"]) <= 60
        async with service.connect("acme/s", coming_from(HOME), close_codes=1) as socket:
            assert await close_code(socket) == 4429
        async with crowd(service, 1, address=ELSEWHERE):
            pass
        async with event_stream(service) as answer:  # no handshake, so nothing is wrong with it
            assert answer == "HTTP/1.1 429 Too Many Requests"


async def test_what_is_no_handshake_is_not_counted_as_a_bad_one(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_bad_handshakes_per_minute": LIMIT}
    async with running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as service:
        forwarded = coming_from(HOME)["additional_headers"]
        for path in ("/ws", "/ws/acme", "/ws/acme/s") * LIMIT:
            assert (await service.get(path, **forwarded)).status in (400, 404)
        async with crowd(service, 1):
            pass


async def test_another_instance_hears_of_an_address_that_knocked_wrongly(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_bad_handshakes_per_minute": LIMIT}
    async with (
        running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as one,
        running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as other,
    ):
        await knock_wrongly(one, LIMIT)

        async def is_kept_out() -> bool:
            with contextlib.suppress(InvalidStatus):
                async with crowd(other, 1):
                    return False
            return True

        await eventually(is_kept_out)
        assert_too_many(await refused(other, "acme/s", offset="x"), LIMIT)


async def test_bad_handshakes_are_counted_while_redis_is_away(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_bad_handshakes_per_minute": LIMIT}
    async with (
        Proxy(redis_server.port) as proxy,
        running_service(proxy.url, prefix, server=PROXY, websocket=limits) as service,
    ):
        proxy.blackhole()
        await knock_wrongly(service, LIMIT)
        assert_too_many(await refused(service, "acme/s"), LIMIT)
        await proxy.heal()


async def test_from_this_machine_any_number_of_handshakes_may_be_bad(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_bad_handshakes_per_minute": 1, "max_connections_per_address": 1}
    async with running_service(redis_server.url, prefix, websocket=limits) as service:
        await knock_wrongly(service, 3)
        async with crowd(service, 3):
            pass
