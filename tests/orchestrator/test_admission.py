"""Whether one more connection is taken: places are counted exactly, and given back once."""

import asyncio
import contextlib

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
from websockets.exceptions import InvalidStatus

from common.domain.errors import Draining, Overloaded
from common.failpoints import armed
from orchestrator.admission import Admission
from orchestrator.app import Phase
from tests.orchestrator.crowds import (
    ELSEWHERE,
    HOME,
    LIMIT,
    PROXY,
    SESSION,
    all_have_left,
    assert_too_many,
    coming_from,
    counted,
    crowd,
    event_stream,
    refused,
    tier,
)
from tests.support.client import close_code, next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.follower import eventually
from tests.support.proxy import Proxy
from tests.support.raw import UPGRADE, raw_socket, raw_websocket
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

# This instance's own places


def a_request() -> HTTPServerRequest:
    start = RequestStartLine("GET", "/ws/acme/s", "HTTP/1.1")
    return HTTPServerRequest(start_line=start, headers=HTTPHeaders({"Host": "localhost"}))


async def test_places_are_counted_and_given_back(redis_server: RedisServer, prefix: str) -> None:
    limit = {"max_connections": 2}
    async with running_service(redis_server.url, prefix, websocket=limit) as service:
        app = service.service.app
        taken = [Admission(app, a_request()) for _ in range(2)]
        for each in taken:
            await each.admit(SESSION)
        late = Admission(app, a_request())
        with pytest.raises(Overloaded):
            await late.admit(SESSION)
        late.release()
        assert app.sockets == 2
        for _ in range(2):
            taken[0].release()
        assert app.sockets == 1
        app.phase = Phase.DRAINING
        with pytest.raises(Draining):
            await Admission(app, a_request()).admit(SESSION)
        app.phase = Phase.SERVING
        taken[1].release()
        assert app.sockets == 0


# A tenant's, and an address's, over all instances


async def test_a_tenant_gets_as_many_connections_as_its_tier_says_and_not_one_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix, **tier(LIMIT)) as service:
        async with crowd(service, LIMIT - 1), crowd(service, 1):
            assert_too_many(await refused(service, "acme/other"), LIMIT)
            async with service.connect("acme/s", close_codes=1) as socket:
                assert await close_code(socket) == 4429
                assert "tenant" in (socket.close_reason or "")
            async with service.connect("another/s") as socket:
                assert (await next_frame(socket))["type"] == "connection_ack"
        await all_have_left(service)


async def test_an_address_gets_as_many_connections_as_it_may_and_not_one_more(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_connections_per_address": LIMIT}
    async with running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as service:
        async with crowd(service, LIMIT - 1), crowd(service, 1, "another/s"):
            assert_too_many(await refused(service, "acme/s"), LIMIT)
            options = coming_from(HOME)
            async with service.connect("acme/s", options, close_codes=1) as socket:
                assert await close_code(socket) == 4429
            async with crowd(service, 1, address=ELSEWHERE) as (socket,):
                assert (await next_frame(socket))["type"] == "connection_ack"
        await all_have_left(service)


async def test_a_claimed_address_makes_no_other_of_a_client_that_is_no_trusted_proxy(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_connections_per_address": 1}
    async with (
        running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as service,
        crowd(service, 1, address=f"{ELSEWHERE}, {HOME}"),
    ):
        for claimed in (f"203.0.113.9, {HOME}", f"127.0.0.1,{HOME}", f"x, {HOME}:80"):
            assert_too_many(await refused(service, "acme/s", claimed), 1)
        async with crowd(service, 1, address=ELSEWHERE):
            pass
    async with (
        running_service(redis_server.url, prefix, websocket=limits) as service,
        crowd(service, 3, address=HOME),  # from this machine, whatever is claimed: not counted
    ):
        assert await counted(service) == (0, 0)


async def test_an_ipv6_client_is_its_network(redis_server: RedisServer, prefix: str) -> None:
    limits = {"max_connections_per_address": 1}
    async with (
        running_service(redis_server.url, prefix, server=PROXY, websocket=limits) as service,
        crowd(service, 1, address="2001:db8::1"),
    ):
        assert_too_many(await refused(service, "acme/s", "[2001:db8::2]:443"), 1)
        async with crowd(service, 1, address="2001:db8:0:1::1"):
            pass


async def test_server_sent_events_take_places_like_sockets(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix, server=PROXY, **tier(1)) as service:
        async with event_stream(service) as answer:
            assert answer == "HTTP/1.1 200 OK"
            assert_too_many(await refused(service, "acme/s"), 1)
            async with event_stream(service) as refusal:
                assert refusal == "HTTP/1.1 429 Too Many Requests"
        await all_have_left(service)
        async with crowd(service, 1), event_stream(service) as refusal:
            assert refusal == "HTTP/1.1 429 Too Many Requests"


# Given back, whatever happens


async def test_places_come_back_whichever_way_a_connection_ends(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix, server=PROXY, **tier(2)) as service:
        path, claim = "/ws/acme/s", f"X-Forwarded-For: {HOME}"
        async with raw_websocket(service.port, path, claim) as raw:  # cut
            assert await counted(service) == (1, 1)
            raw.writer.transport.abort()
        await all_have_left(service)
        async with raw_socket(service.port) as raw:  # gone while it is let in
            head = (f"GET {path} HTTP/1.1", "Host: x", claim, *UPGRADE, "", "")
            await raw.write("\r\n".join(head).encode())
            raw.writer.transport.abort()
        await all_have_left(service)
        async with crowd(service, 1) as (socket,):  # its actor fails
            await next_frame(socket)
            with armed("session.on_receive=raise:1"):
                await say(socket, "ping")
                assert await close_code(socket) == 4500
            await all_have_left(service)
        async with crowd(service, 2):
            assert await counted(service) == (2, 2)
        await all_have_left(service)


async def test_a_drained_instance_leaves_no_places_behind(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        FakeExecutor(redis_server.url, prefix) as fake,
        running_service(redis_server.url, prefix, server=PROXY, **tier(5)) as service,
        crowd(service, 3),
    ):
        assert await fake.redis.keys(f"{prefix}connections:*")
        await service.service.drain()
        assert not await fake.redis.keys(f"{prefix}connections:*")


@pytest.mark.alone
async def test_who_is_refused_while_redis_is_away_takes_no_place(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        running_service(proxy.url, prefix, server=PROXY, **tier(1)) as service,
    ):
        proxy.blackhole()
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            response = await refused(service, "acme/s")
            assert asyncio.get_running_loop().time() - began < 3.2
            assert response.status_code == 503
        await proxy.heal()

        async def is_let_in() -> bool:
            with contextlib.suppress(InvalidStatus):
                async with crowd(service, 1) as (socket,):
                    return bool(await next_frame(socket))
            return False

        await eventually(is_let_in)
        await all_have_left(service)
