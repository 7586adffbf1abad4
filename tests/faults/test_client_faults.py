"""Clients that vanish, dawdle, come back all the time, or talk nonsense (FAULTS, c3 and c4)."""

import asyncio
import contextlib
import random
import statistics
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.client import Address, close_code, frames_until, next_frame, say
from tests.support.fake_executor import FakeExecutor
from tests.support.figures import measured
from tests.support.follower import Follower, answering, eventually
from tests.support.proxy import Proxy
from tests.support.raw import CLOSE, PING, TEXT, UPGRADE, RawSocket, frame, raw_socket
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service

KEY = "8f6f6a53-3f0e-4b0c-9c5a-1d2e3f405162"


async def push(service: Address, session_id: str = "s-1", **data: Any) -> None:
    body = {"tenant_id": "acme", "session_id": session_id, "message_data": data}
    assert (await service.post("/api/ws/send", body)).status == 202


async def stats(service: Address) -> dict[str, Any]:
    found: dict[str, Any] = (await service.get("/ws/stats")).json["instance"]
    return found


async def has_connections(service: Address, count: int) -> bool:
    return int((await stats(service))["connections"]) == count


def through(proxy: Proxy) -> Address:
    """The service as clients behind the proxy see it."""
    return Address(proxy.port)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


# P4


async def test_an_answer_that_was_lost_on_its_way_is_found_again_by_its_key(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        Proxy(service.port) as proxy,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        proxy.cut_replies = 1
        with pytest.raises(Exception, match="closed"):
            await through(proxy).send(key=KEY)
        again = await through(proxy).send(key=KEY)
        assert (again.status, again.headers["Idempotent-Replayed"]) == (202, "true")
        assert (await executor.take()).task_id == again.json["task_id"]
        assert (await service.events())["last_offset"] == 1


# N1


async def test_a_half_open_connection_is_closed_with_4408_and_forgotten(
    redis_server: RedisServer, prefix: str
) -> None:
    pings = {"ping_interval": 0.5, "ping_timeout": 0.5}
    async with (
        running_service(redis_server.url, prefix, websocket=pings) as service,
        Proxy(service.port) as proxy,
        raw_socket(service.port) as silent,
        through(proxy).connect("acme/gone") as gone,
    ):
        await next_frame(gone)
        proxy.blackhole()  # no FIN, no RST: the network is just gone
        assert (await silent.upgrade("/ws/acme/silent")).status == 101
        assert (await silent.frame_of(PING)).opcode == PING  # and is never answered
        assert (await silent.frame_of(CLOSE)).close_code == 4408
        await eventually(lambda: has_connections(service, 0), within=10)
        await proxy.heal()


# N2, N5


@pytest.mark.alone
async def test_slow_readers_cost_little_memory_and_no_other_tab_its_time(
    redis_server: RedisServer, prefix: str
) -> None:
    """Twenty tabs that read nothing, and one that does, while 12 MB are said to all of them."""
    text = "x" * 100_000
    small = {"websocket": {"send_buffer_bytes": 200_000}}
    async with (
        process_service(redis_server.url, prefix, environ=None, is_ready=True, **small) as service,
        service.connect() as tab,
        contextlib.AsyncExitStack() as stack,
    ):
        await next_frame(tab)
        waits: list[float] = []

        async def say_it(times: int) -> None:
            for number in range(times):
                said = time.monotonic()
                await push(service, text=text, number=number)
                assert (await next_frame(tab))["data"]["number"] == number
                waits.append(time.monotonic() - said)

        await say_it(20)
        quiet, before = statistics.median(waits), resident_bytes(service.pid)
        waits.clear()
        for _ in range(20):
            slow = await stack.enter_async_context(raw_socket(service.port, receive_buffer=4096))
            assert (await slow.upgrade("/ws/acme/s-1")).status == 101
        await say_it(120)
        grown = (resident_bytes(service.pid) - before) / 20 / 2**20
        measured("memory of a reader that reads nothing", grown, "MiB")
        measured("the other tab's latency, median, alone", quiet * 1000, "ms")
        measured("the same beside 20 slow readers", statistics.median(waits) * 1000, "ms")
        assert grown < 5
        assert statistics.median(waits) < quiet + 0.25
        assert (await stats(service))["slow_consumers_closed"] == 20
        await eventually(lambda: has_connections(service, 1))


async def test_who_read_too_slowly_is_told_4008_and_resumes_where_it_was(
    redis_server: RedisServer, prefix: str
) -> None:
    small = {"websocket": {"send_buffer_bytes": 100_000}}
    async with running_service(redis_server.url, prefix, **small) as service:
        dawdles = {"max_queue": 1}  # reads no further until it is asked for a frame
        async with service.connect(options=dawdles) as slow:
            epoch = (await next_frame(slow))["data"]["epoch"]
            for number in range(150):
                await push(service, text="x" * 100_000, number=number)
            offsets = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    offsets.append(orjson.loads(await slow.recv())["offset"])
            assert slow.close_code in {4008, 1006}  # where the socket still takes it
        assert offsets == list(range(1, len(offsets) + 1))
        assert len(offsets) < 150
        async with service.connect(epoch=epoch, offset=len(offsets)) as again:
            assert (await next_frame(again))["data"]["recovered"] is True
            rest = [(await next_frame(again))["offset"] for _ in range(150 - len(offsets))]
            assert [*offsets, *rest] == list(range(1, 151))


# N4


async def test_a_client_that_comes_and_goes_every_moment_misses_nothing_and_leaves_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    follower = Follower()
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        Proxy(service.port) as proxy,
    ):
        async with (
            follower.following(through(proxy)),
            answering(executor, *"abcdefgh", pause=0.02),
        ):
            for number in range(10):
                assert (await service.send(key=f"{KEY}{number}")).status == 202
            for _ in range(40):  # at any moment, that of a handshake as well
                await asyncio.sleep(0.05)
                proxy.cut()
            while len(follower.closes) <= 10:  # a slow machine gets no handshake done in between
                await eventually(follower.connected.is_set)
                proxy.cut()
                await eventually(lambda: not follower.connected.is_set())
            await follower.ended(10, within=30)
        assert follower.text == "abcdefgh" * 10
        await eventually(lambda: has_connections(service, 0))
        await eventually(lambda: _listens_to_nobody(executor, prefix))


async def _listens_to_nobody(executor: FakeExecutor, prefix: str) -> bool:
    heard: list[bytes] = await executor.redis.pubsub_channels(f"{prefix}session:*")
    return heard == []


# N7


async def whole_frames(data: bytes) -> list[dict[str, Any]]:
    """What a client makes of the bytes that reached it."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            read = await RawSocket(reader, None).frame()  # type: ignore[arg-type]
            frames.append(orjson.loads(read.payload))
    return frames


async def resumed(service: Address, count: int, known: dict[str, Any]) -> list[int]:
    """Connects, and cuts after so many bytes; then once more from there on, to the end."""
    query = urlencode(known or {"offset": 0})
    async with raw_socket(service.port) as raw:
        assert (await raw.upgrade(f"/ws/acme/s-1?{query}")).status == 101
        frames = await whole_frames(await raw.reader.readexactly(count))
        raw.writer.transport.abort()
    offsets = [each["offset"] for each in frames if "offset" in each]
    known = {"offset": 0}
    if frames:
        known = {"epoch": frames[0]["data"]["epoch"], "offset": offsets[-1] if offsets else 0}
    async with service.connect(**known) as socket:
        ack = await next_frame(socket)
        assert ack["data"]["recovered"] is True
        rest = range(ack["data"]["replayed"])
        return offsets + [(await next_frame(socket))["offset"] for _ in rest]


async def test_a_connection_cut_after_any_number_of_bytes_loses_and_doubles_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        for number in range(40):
            await push(service, number=number)
        everything = list(range(1, 41))
        for count in range(1, 4096, 37):
            assert await resumed(service, count, {}) == everything, f"cut after {count} bytes"


# N8


@pytest.mark.alone
async def test_two_hundred_who_never_finish_their_headers_keep_nobody_out(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(200):
            raw = await stack.enter_async_context(raw_socket(service.port))
            await raw.write(b"GET /ws/acme/s-1 HTTP/1.1\r\nHost: a\r\nX: ")
        began = time.monotonic()
        async with service.connect() as socket:
            await next_frame(socket)
        assert time.monotonic() - began < 1


# P14, S23


@pytest.mark.alone
async def test_a_client_that_floods_slows_no_other_tenant(
    redis_server: RedisServer, prefix: str
) -> None:
    """It sends as fast as it can, and reads nothing of what it is answered."""
    as_fast_as_it_can = {"max_frames_per_second": None}
    async with (
        process_service(redis_server.url, prefix, websocket=as_fast_as_it_can) as service,
        service.connect("quiet/s-1") as quiet,
        raw_socket(service.port) as raw,
    ):
        await next_frame(quiet)

        async def pings(count: int) -> list[float]:
            waits = []
            for number in range(count):
                said = time.monotonic()
                await say(quiet, "ping", f"p-{number}")
                await frames_until(quiet, "pong")
                waits.append(time.monotonic() - said)
                await asyncio.sleep(0.005)
            return waits

        alone = statistics.median(await pings(50))
        assert (await raw.upgrade("/ws/loud/s-1")).status == 101
        status = {"type": "chat.get_status", "id": "x", "data": {"task_id": KEY}}
        some = frame(TEXT, orjson.dumps(status)) * 100

        async def flood() -> None:
            while True:
                await raw.write(some)

        flooding = asyncio.create_task(flood())
        try:
            beside = statistics.median(await pings(100))
        finally:
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
        measured("a ping's way there and back, alone", alone * 1000, "ms")
        measured("the same beside a flood of another tenant", beside * 1000, "ms")
        assert beside < alone + 0.1


# B17


def words(dice: random.Random) -> bytes:
    """A frame as a client might send it, then damaged."""
    data: dict[str, Any] = {"agent_id": "echo", "message": "hello", "timeout": 5}
    type_ = dice.choice(["chat.send_message", "chat.get_status", "chat.cancel_task", "ping", ""])
    text = bytearray(orjson.dumps({"type": type_, "id": "x" * dice.randrange(40), "data": data}))
    for _ in range(dice.randrange(6)):
        place = dice.randrange(len(text) + 1)
        match dice.randrange(4):
            case 0:
                text[place:place] = dice.randbytes(dice.randrange(1, 5))
            case 1:
                del text[place : place + dice.randrange(1, 9)]
            case 2:
                text[place : place + 1] = dice.choice(
                    [b"{", b"}", b"[", b'"', b"\\", b"\0", b"1e9"]
                )
            case _:
                text[place:place] = text[: dice.randrange(20)]
    return bytes(text)


def wire(dice: random.Random) -> bytes:
    """A WebSocket frame with that in it, well-formed more often than not."""
    payload = words(dice)
    if dice.random() < 0.7:
        return frame(TEXT, payload)
    if dice.random() < 0.3:
        return dice.randbytes(dice.randrange(1, 40))
    return frame(
        dice.randrange(16),
        payload[: dice.choice([0, 1, 2, 100, 200])],
        is_final=dice.random() < 0.8,
        reserved=dice.choice([0, 0, 0, 0x40, 0x10]),
        is_masked=dice.random() < 0.9,
    )


@contextlib.asynccontextmanager
async def fuzzed(port: int, dice: random.Random) -> AsyncIterator[int]:
    """One connection's worth of nonsense; says how many frames that were."""
    async with raw_socket(port) as raw:
        head = "\r\n".join(("GET /ws/fuzz/s-1 HTTP/1.1", "Host: a", *UPGRADE, "", ""))
        many = [wire(dice) for _ in range(40)]
        await raw.write(head.encode() + b"".join(many))
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(0.2):
                await raw.reader.read()
        yield len(many)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_and_damaged_frames_are_answered_or_cut_off_and_break_nothing(
    redis_server: RedisServer, prefix: str, seed: int
) -> None:
    dice, tried = random.Random(seed), 0
    async with (
        process_service(redis_server.url, prefix) as service,
        service.connect("quiet/s-1") as quiet,
    ):
        await next_frame(quiet)

        async def one() -> int:
            async with fuzzed(service.port, dice) as count:
                return count

        for _ in range(5):
            tried += sum(await asyncio.gather(*(one() for _ in range(20))))
        await say(quiet, "ping", "p-1")
        await frames_until(quiet, "pong")
        report = (await service.get("/health/detailed")).json
        assert report["components"]["actors"]["restarts"] == 0
        assert "Traceback" not in service.log
        await eventually(lambda: has_connections(service, 1), within=30)
        measured("damaged frames, none of which broke anything", tried, "frames")
        await quiet.close()
        assert await close_code(quiet) == 1000


# B1


async def test_a_small_frame_that_unpacks_to_two_hundred_megabytes_is_too_large(
    redis_server: RedisServer, prefix: str
) -> None:
    packer = zlib.compressobj(9, wbits=-15)
    some = b"x" * 2**20
    bomb = b"".join(packer.compress(some) for _ in range(200)) + packer.flush(zlib.Z_SYNC_FLUSH)
    async with process_service(
        redis_server.url, prefix, websocket={"compression": True}
    ) as service:
        async with raw_socket(service.port) as raw:
            answer = await raw.upgrade(
                "/ws/acme/s-1", "Sec-WebSocket-Extensions: permessage-deflate"
            )
            assert answer.headers["sec-websocket-extensions"].startswith("permessage-deflate")
            before = resident_bytes(service.pid)
            await raw.send(TEXT, bomb.removesuffix(b"\0\0\xff\xff"), reserved=0x40)
            assert (await raw.frame_of(CLOSE)).close_code == 1009
            assert resident_bytes(service.pid) - before < 20 * 2**20
        assert (await service.get("/health")).status == 200
