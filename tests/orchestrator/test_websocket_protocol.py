"""RFC 6455 byte by byte, in the case groups of the Autobahn test suite."""

import asyncio
import struct
import zlib
from urllib.parse import urlsplit

import orjson
import pytest

from tests.support.proxy import Proxy
from tests.support.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawSocket,
    close_payload,
    frame,
    raw_socket,
    raw_websocket,
)
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess, running_service

SAY_PING = b'{"type":"ping","id":"p"}'
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def assert_alive(raw: RawSocket) -> None:
    """A ping of the contract's own is answered: the connection is as good as before."""
    await raw.send(TEXT, SAY_PING)
    pong = orjson.loads((await raw.frame_of(TEXT)).payload)
    assert (pong["type"], pong["id"]) == ("pong", "p")


async def close_code_of(raw: RawSocket) -> int | None:
    """The code that the server closes with; then it hangs up."""
    code = (await raw.frame_of(CLOSE)).close_code
    await raw.send(CLOSE)
    assert await raw.ended()
    return code


# 1: framing


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 262_144 - 40])
async def test_messages_of_each_form_of_length_arrive(
    instance: RunningProcess, tenant: str, length: int
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        text = orjson.dumps({"type": "ping", "id": "p", "x": "y" * length})
        await raw.send(TEXT, text)
        answer = orjson.loads((await raw.frame()).payload)
        assert (answer["type"], answer["id"]) == ("error", "p")  # of an unknown field, read whole


async def test_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(
    instance: RunningProcess, tenant: str
) -> None:
    most = 262_144
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, b" " * (most - len(SAY_PING)) + SAY_PING)
        assert orjson.loads((await raw.frame()).payload)["type"] == "pong"
        await raw.send(TEXT, b" " * (most + 1 - len(SAY_PING)) + SAY_PING)
        assert await close_code_of(raw) == 1009


async def test_fragments_that_are_too_much_together_are_too_big(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, b" " * 200_000, is_final=False)
        await raw.send(CONTINUATION, b" " * 100_000)
        assert await close_code_of(raw) == 1009


@pytest.mark.parametrize("length", [2**62, 2**63, 2**64 - 1, 300_000])
async def test_a_declared_length_is_refused_before_anything_of_it_is_read(
    instance: RunningProcess, tenant: str, length: int
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.write(struct.pack("!BBQ", 0x81, 0x80 | 127, length))
        assert await close_code_of(raw) == 1009


async def test_an_unmasked_frame_breaks_the_protocol(instance: RunningProcess, tenant: str) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, SAY_PING, is_masked=False)
        assert await close_code_of(raw) == 1002


async def test_a_binary_message_is_a_bad_frame_and_no_more(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(BINARY, SAY_PING)
        assert orjson.loads((await raw.frame()).payload)["data"]["code"] == "bad_request"
        await assert_alive(raw)


# 2: pings and pongs


@pytest.mark.parametrize("payload", [b"", b"Hello", b"\x00\xff\xfe", b"x" * 125])
async def test_a_ping_is_answered_with_what_it_carried(
    instance: RunningProcess, tenant: str, payload: bytes
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(PING, payload)
        assert (await raw.frame_of(PONG)).payload == payload


async def test_a_pong_that_nobody_asked_for_changes_nothing(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(PONG, b"unsolicited")
        await assert_alive(raw)


# 3, 4, 5: reserved bits, reserved opcodes, fragmentation


@pytest.mark.parametrize("reserved", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
async def test_reserved_bits_break_the_protocol(
    instance: RunningProcess, tenant: str, reserved: int, opcode: int
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(opcode, b"", reserved=reserved)
        assert await close_code_of(raw) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
async def test_reserved_opcodes_break_the_protocol(
    instance: RunningProcess, tenant: str, opcode: int
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(opcode, b"x")
        assert await close_code_of(raw) == 1002


@pytest.mark.parametrize(
    "frames",
    [
        [frame(CONTINUATION, b"orphan")],
        [frame(CONTINUATION, b"orphan", is_final=False)],
        [frame(TEXT, b"{", is_final=False), frame(TEXT, b"}")],
        [frame(TEXT, b"{", is_final=False), frame(BINARY, b"}", is_final=False)],
        [frame(PING, b"x", is_final=False)],
        [frame(CLOSE, b"", is_final=False)],
        [frame(PING, b"x" * 126)],
        [frame(CLOSE, close_payload(1000) + b"x" * 124)],
        [frame(TEXT, SAY_PING), frame(CONTINUATION, b"after a whole one")],
    ],
)
async def test_fragments_out_of_order_break_the_protocol(
    instance: RunningProcess, tenant: str, frames: list[bytes]
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.write(b"".join(frames))
        assert await close_code_of(raw) == 1002


async def test_a_message_may_come_in_fragments_with_pings_in_between(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, SAY_PING[:5], is_final=False)
        await raw.send(PING, b"1")
        await raw.send(CONTINUATION, b"", is_final=False)
        await raw.send(CONTINUATION, SAY_PING[5:9], is_final=False)
        await raw.send(PING, b"2")
        await raw.send(CONTINUATION, SAY_PING[9:])
        frames = [await raw.frame() for _ in range(3)]
        assert [each.payload for each in frames[:2]] == [b"1", b"2"]
        assert orjson.loads(frames[2].payload)["type"] == "pong"


async def test_a_ping_between_fragments_of_the_largest_message_is_answered(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, b" " * (262_144 - len(SAY_PING)), is_final=False)
        await raw.send(PING, b"x" * 125)
        await raw.send(CONTINUATION, SAY_PING)
        assert (await raw.frame()).opcode == PONG
        assert orjson.loads((await raw.frame()).payload)["type"] == "pong"


async def test_a_message_may_come_byte_by_byte(instance: RunningProcess, tenant: str) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.slowly(frame(TEXT, SAY_PING) + frame(TEXT, SAY_PING))
        for _ in range(2):
            assert orjson.loads((await raw.frame()).payload)["type"] == "pong"


# 6: UTF-8


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"\xce", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", SAY_PING + b"\x80"],
)
async def test_text_that_is_not_utf_8_is_bad_data(
    instance: RunningProcess, tenant: str, text: bytes
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, text)
        assert await close_code_of(raw) == 1007


async def test_a_character_may_be_cut_by_fragments(instance: RunningProcess, tenant: str) -> None:
    text = '{"type":"ping","id":"p","data":{"x":"ä😀"}}'.encode()
    cut = text.index("😀".encode()) + 2
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(TEXT, text[:cut], is_final=False)
        await raw.send(CONTINUATION, text[cut:])
        assert (await raw.frame()).opcode == TEXT
        await assert_alive(raw)


# 7: closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1011, 3000, 3999, 4999])
async def test_a_legal_close_is_answered_with_its_code(
    instance: RunningProcess, tenant: str, code: int
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(CLOSE, close_payload(code, "good bye ä".encode()))
        assert (await raw.frame_of(CLOSE)).close_code == code
        assert await raw.ended()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535])
async def test_a_close_with_a_code_that_nobody_may_send_breaks_the_protocol(
    instance: RunningProcess, tenant: str, code: int
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(CLOSE, close_payload(code))
        assert await close_code_of(raw) == 1002


@pytest.mark.parametrize("payload", [b"\x03", close_payload(1000, b"\xff")])
async def test_a_close_that_cannot_be_read_breaks_the_protocol(
    instance: RunningProcess, tenant: str, payload: bytes
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(CLOSE, payload)
        assert await close_code_of(raw) == 1002


async def test_an_empty_close_is_answered_with_an_empty_one(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.send(CLOSE)
        assert (await raw.frame_of(CLOSE)).close_code is None
        assert await raw.ended()


async def test_what_follows_a_close_is_not_looked_at(instance: RunningProcess, tenant: str) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.write(frame(CLOSE, close_payload(1000)) + frame(TEXT, SAY_PING) + frame(PING))
        assert (await raw.frame()).close_code == 1000
        assert await raw.ended()


async def test_a_client_that_hangs_up_within_a_frame_disturbs_nobody(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await raw.write(frame(TEXT, SAY_PING)[:5])
    async with raw_websocket(instance.port, f"/ws/{tenant}/s") as raw:
        await assert_alive(raw)


# 12, 13: compression


def deflated(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")


async def test_compression_is_not_offered_unless_it_is_configured(
    instance: RunningProcess, tenant: str
) -> None:
    async with raw_socket(instance.port) as raw:
        answer = await raw.upgrade(f"/ws/{tenant}/s", DEFLATE)
        assert answer.status == 101
        assert "sec-websocket-extensions" not in answer.headers
        assert not (await raw.frame()).is_compressed


async def test_compressed_messages_go_both_ways(redis_server: RedisServer, prefix: str) -> None:
    async with running_service(
        redis_server.url, prefix, websocket={"compression": True, "max_message_bytes": 10_000}
    ) as service:
        no_context = f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover"
        async with raw_websocket(service.port, "/ws/acme/s", no_context) as raw:
            text = deflated(SAY_PING)
            await raw.send(TEXT, text, reserved=0x40)
            await raw.send(TEXT, text[:4], reserved=0x40, is_final=False)
            await raw.send(PING, b"between")
            await raw.send(CONTINUATION, text[4:])
            await raw.send(TEXT, SAY_PING)  # not every message has to be compressed
            assert orjson.loads(inflated((await raw.frame()).payload))["type"] == "pong"
            assert (await raw.frame()).payload == b"between"
            for _ in range(2):
                answer = await raw.frame()
                assert answer.is_compressed
                assert orjson.loads(inflated(answer.payload))["type"] == "pong"
        for payload, code in (
            (deflated(b" " * 10_001), 1009),  # small on the wire
            (b"\xff\xff\xff", 1007),
            (deflated(b'"\xff"'), 1007),
        ):
            async with raw_websocket(service.port, "/ws/acme/s", DEFLATE) as raw:
                await raw.send(TEXT, payload, reserved=0x40)
                assert await close_code_of(raw) == code
        async with raw_websocket(service.port, "/ws/acme/s", no_context) as raw:
            await raw.send(
                TEXT, deflated(b" " * (10_000 - len(SAY_PING)) + SAY_PING), reserved=0x40
            )
            assert inflated((await raw.frame()).payload)
            await raw.send(PING, b"", reserved=0x40)
            assert await close_code_of(raw) == 1002


@pytest.mark.parametrize(
    "parameter", ["unknown_parameter", "server_max_window_bits=99", "client_max_window_bits=x"]
)
async def test_an_offer_that_makes_no_sense_is_declined(
    redis_server: RedisServer, prefix: str, parameter: str
) -> None:
    async with (
        running_service(redis_server.url, prefix, websocket={"compression": True}) as service,
        raw_socket(service.port) as raw,
    ):
        answer = await raw.upgrade("/ws/acme/s", f"{DEFLATE}; {parameter}")
        assert answer.status == 101
        assert "sec-websocket-extensions" not in answer.headers
        assert (await raw.frame()).opcode == TEXT
        await assert_alive(raw)


# Signs of life


def port_of(proxy: Proxy) -> int:
    port = urlsplit(proxy.url).port
    assert port is not None
    return port


async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(
            redis_server.url, prefix, websocket={"ping_interval": 1, "ping_timeout": 1}
        ) as service,
        raw_websocket(service.port, "/ws/acme/s") as raw,
    ):
        for _ in range(3):
            await raw.send(PONG, (await raw.frame_of(PING)).payload)
        assert (await raw.frame_of(CLOSE)).close_code == 4408
        await raw.send(CLOSE, close_payload(4408))
        assert await raw.ended()


async def test_a_client_behind_a_dead_network_is_forgotten(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(
            redis_server.url, prefix, websocket={"ping_interval": 0.2, "ping_timeout": 0.1}
        ) as service,
        Proxy(service.port) as proxy,
        raw_websocket(port_of(proxy), "/ws/acme/s"),
    ):
        proxy.blackhole()
        async with asyncio.timeout(10):
            while (await service.get("/ws/stats")).json["instance"]["connections"]:
                await asyncio.sleep(0.1)
