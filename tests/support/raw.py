"""Bytes on a socket, for what no well-behaved client would send: HTTP, and WebSocket frames."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

WITHIN = 10.0  # seconds
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as the server sent it."""

    opcode: int
    payload: bytes
    is_compressed: bool = False

    @property
    def close_code(self) -> int | None:
        assert self.opcode == CLOSE, self
        return int(struct.unpack("!H", self.payload[:2])[0]) if self.payload else None


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An HTTP answer; `headers` in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawSocket:
    """A TCP connection to a server. What should come is waited for, and has to come soon."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def slowly(self, data: bytes) -> None:
        """One byte a packet."""
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            await self.write(bytes((byte,)))
            await asyncio.sleep(0)

    async def request(
        self, method: str, path: str, headers: Sequence[str] = (), body: bytes = b""
    ) -> RawAnswer:
        head = "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""))
        await self.write(head.encode("latin-1") + body)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> RawAnswer:
        async with asyncio.timeout(WITHIN):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
            }
            length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            body = await self.reader.readexactly(length)
        return RawAnswer(int(first.split()[1]), headers, body)

    async def upgrade(self, path: str, *headers: str) -> RawAnswer:
        return await self.request("GET", path, [*UPGRADE, *headers])

    async def send(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        is_final: bool = True,
        reserved: int = 0,
        is_masked: bool = True,
    ) -> None:
        await self.write(
            frame(opcode, payload, is_final=is_final, reserved=reserved, is_masked=is_masked)
        )

    async def frame(self) -> RawFrame:
        async with asyncio.timeout(WITHIN):
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(length)
        assert first & 0x80, "servers of ours send no fragments"
        return RawFrame(first & 0x0F, payload, bool(first & 0x40))

    async def frame_of(self, opcode: int) -> RawFrame:
        """The next frame of that opcode; others are read away."""
        while (found := await self.frame()).opcode != opcode:
            pass
        return found

    async def ended(self) -> bool:
        """Returns once the server has closed the connection; what comes before is read away."""
        async with asyncio.timeout(WITHIN):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass
        return True

    def is_open(self) -> bool:
        return not self.reader.at_eof()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    is_final: bool = True,
    reserved: int = 0,
    is_masked: bool = True,
) -> bytes:
    first = (0x80 if is_final else 0) | reserved | opcode
    if len(payload) < 126:
        head = bytes((first, 0x80 * is_masked | len(payload)))
    elif len(payload) < 65_536:
        head = struct.pack("!BBH", first, 0x80 * is_masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 * is_masked | 127, len(payload))
    if not is_masked:
        return head + payload
    mask = os.urandom(4)
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload) ^ int.from_bytes(repeated)
    return head + mask + masked.to_bytes(len(payload))


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


@contextlib.asynccontextmanager
async def raw_socket(port: int, receive_buffer: int = 0) -> AsyncIterator[RawSocket]:
    """`receive_buffer`, bytes, makes a reader whom little can be sent ahead."""
    connection = socket.socket()
    connection.setblocking(False)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    limit = receive_buffer or 2**16
    reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
    try:
        yield RawSocket(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_websocket(
    port: int, path: str, *headers: str, receive_buffer: int = 0
) -> AsyncIterator[RawSocket]:
    """Upgraded, its `connection_ack` read."""
    async with raw_socket(port, receive_buffer) as raw:
        answer = await raw.upgrade(path, *headers)
        assert answer.status == 101, answer
        assert (await raw.frame()).opcode == TEXT
        yield raw
