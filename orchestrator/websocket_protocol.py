"""RFC 6455 where Tornado's own protocol is lenient or silent, and the contract's close codes.

Tornado takes unmasked frames, echoes illegal close codes, drops the connection on a protocol error
without a close frame, and ends a connection whose pong is missing with code 1000. Here each of
these is answered with the code that tells the client what to do (contract, section 4).
"""

import asyncio
import contextlib
import socket
import struct
import zlib
from typing import Any

from tornado import httputil
from tornado.iostream import StreamClosedError
from tornado.util import _websocket_mask
from tornado.websocket import (
    WebSocketHandler,
    WebSocketProtocol13,
    _DecompressTooLargeError,
    _WebSocketParams,
)

from orchestrator.token_bucket import TokenBucket

PROTOCOL_ERROR = 1002
BAD_DATA = 1007
TOO_BIG = 1009
NO_PONG = 4408
TOO_FAST = 4429

WINDOW_BITS = frozenset(map(str, range(9, 16)))  # what zlib can do of the RFC's 8 to 15
FAREWELL = 1.0  # seconds
READ_AFTER_CLOSE = 65_536  # bytes a read, while a client that broke the protocol hangs up


class StrictProtocol(WebSocketProtocol13):
    """Tornado's protocol, with frames checked as the RFC says before they are handled."""

    _ping_timer: asyncio.TimerHandle | None = None
    _failed = False
    _is_compressed = False  # the message that arrives

    def __init__(
        self, handler: WebSocketHandler, params: _WebSocketParams, frames: TokenBucket
    ) -> None:
        super().__init__(handler, mask_outgoing=False, params=params)
        self._frames = frames

    def _parse_extensions_header(
        self, headers: httputil.HTTPHeaders
    ) -> list[tuple[str, dict[str, Any]]]:
        """The client's offers, without those that make no sense: they are declined (RFC 7692).

        Tornado's own reading loses the parameters that have no value.
        """
        offers = map(_read_offer, headers.get("Sec-WebSocket-Extensions", "").split(","))
        return [offer for offer in offers if all(map(_is_sensible, offer[1].items()))]

    async def _receive_frame(self) -> None:
        if self._failed:
            await self._read_away()
            return
        header, second = await self._read_bytes(2)
        if not self._frames.take():  # also fragments and pings: each costs as much to read
            self._fail(TOO_FAST, "too many frames a second")
            return
        is_final, opcode = bool(header & self.FIN), header & self.OPCODE_MASK
        length = second & 0x7F
        if self._breaks_rules(header, second):
            self._fail(PROTOCOL_ERROR, "protocol error")
            return
        if length == 126:
            (length,) = struct.unpack("!H", await self._read_bytes(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._read_bytes(8))
        waiting = b"" if opcode & 0x8 else self._fragmented_message_buffer or b""
        if length + len(waiting) > self.params.max_message_size:
            self._fail(TOO_BIG, "message too big")
            return
        mask = await self._read_bytes(4)
        data = _websocket_mask(mask, await self._read_bytes(length))
        self._received_pong = True  # whatever a client sends, it lives
        message = self._assemble(opcode, data, is_final=is_final)
        if message is not None:
            await self._deliver(*message)

    def _breaks_rules(self, header: int, second: int) -> bool:
        """Whether the first two bytes of a frame are illegal here (section 5 of the RFC)."""
        opcode, is_final = header & self.OPCODE_MASK, bool(header & self.FIN)
        reserved = header & self.RSV_MASK
        if self._decompressor is not None and opcode in (0x1, 0x2):
            self._is_compressed = bool(reserved & self.RSV1)
            reserved &= ~self.RSV1
        is_control = bool(opcode & 0x8)
        continues = self._fragmented_message_buffer is not None
        return (
            bool(reserved)
            or not second & 0x80  # a client must mask
            or opcode not in (0x0, 0x1, 0x2, 0x8, 0x9, 0xA)
            or (is_control and (not is_final or (second & 0x7F) > 125))
            or (opcode == 0x0 and not continues)
            or (opcode in (0x1, 0x2) and continues)
        )

    def _assemble(self, opcode: int, data: bytes, *, is_final: bool) -> tuple[int, bytes] | None:
        """A whole message or control frame; None while fragments are missing."""
        if opcode & 0x8:
            return opcode, data
        buffer = self._fragmented_message_buffer
        if opcode != 0x0:
            if is_final:
                return opcode, data
            self._fragmented_message_opcode: Any = opcode
            self._fragmented_message_buffer = bytearray(data)
            return None
        assert buffer is not None  # noqa: S101  `_breaks_rules` has seen to it
        buffer.extend(data)
        if not is_final:
            return None
        self._fragmented_message_buffer = None
        return int(self._fragmented_message_opcode), bytes(buffer)

    async def _deliver(self, opcode: int, data: bytes) -> None:
        if opcode == 0x8 and not _is_legal_close(data):
            self._fail(PROTOCOL_ERROR, "illegal close frame")
            return
        is_compressed = not opcode & 0x8 and self._is_compressed
        plain = self._inflate(data) if is_compressed else data
        if plain is None:
            return
        if opcode == 0x1 and not _is_utf8(plain):
            self._fail(BAD_DATA, "text that is not UTF-8")
            return
        handled = self._handle_message(opcode, plain)
        if handled is not None:
            await handled

    def _inflate(self, data: bytes) -> bytes | None:
        """A compressed message as it was; None, and the connection fails, if that cannot be."""
        assert self._decompressor is not None  # noqa: S101  else the bit would be an illegal one
        try:
            return self._decompressor.decompress(data)
        except _DecompressTooLargeError:
            self._fail(TOO_BIG, "message too big")
        except zlib.error:
            self._fail(BAD_DATA, "not what permessage-deflate makes")
        return None

    def _fail(self, code: int, reason: str) -> None:
        """Says why, and then reads on without looking, so that the reason arrives."""
        self._failed = True
        self.close(code, reason)
        # What follows cannot be read, so no close of the client's is waited for, only its end.
        if not (self.stream.closed() or self.stream.writing()):
            with contextlib.suppress(OSError):
                self.stream.socket.shutdown(socket.SHUT_WR)
        asyncio.get_running_loop().call_later(FAREWELL, self._abort)

    async def _read_away(self) -> None:
        await self.stream.read_bytes(READ_AFTER_CLOSE, partial=True)

    # Pings: a timer a connection, no task.

    def start_pinging(self) -> None:
        self._wait_then(self.ping_interval, self._send_ping)

    def _send_ping(self) -> None:
        self._received_pong = False
        try:
            self.write_ping(b"")
        except StreamClosedError:
            return
        self._wait_then(self.ping_timeout, self._check_pong)

    def _check_pong(self) -> None:
        if not self._received_pong:
            self.close(NO_PONG, "no pong in time")
            return
        self._wait_then(max(0.0, self.ping_interval - self.ping_timeout), self._send_ping)

    def _wait_then(self, seconds: float, step: Any) -> None:
        if self.ping_interval and not self.is_closing():
            self._ping_timer = asyncio.get_running_loop().call_later(seconds, step)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None
        super().close(code, reason)


def _read_offer(text: str) -> tuple[str, dict[str, str | None]]:
    name, *parameters = (part.strip() for part in text.split(";"))
    named = (parameter.partition("=") for parameter in parameters)
    return name, {key.strip(): value.strip(' "') or None for key, _, value in named}


def _is_sensible(parameter: tuple[str, str | None]) -> bool:
    """Whether a parameter of permessage-deflate is one, and may have that value."""
    match parameter:
        case ("server_no_context_takeover" | "client_no_context_takeover", None):
            return True
        case ("client_max_window_bits", None):
            return True
        case ("server_max_window_bits" | "client_max_window_bits", str(bits)):
            return bits in WINDOW_BITS
        case _:
            return False


def _is_legal_close(data: bytes) -> bool:
    """An empty body, or a code that may be sent and a reason in UTF-8 (RFC 6455, section 7.4)."""
    if not data:
        return True
    if len(data) == 1:
        return False
    (code,) = struct.unpack("!H", data[:2])
    may_be_sent = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999
    return may_be_sent and _is_utf8(data[2:])


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
