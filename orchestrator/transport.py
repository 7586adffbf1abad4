"""A WebSocket as SessionActors see it: frames of one loop turn leave in one write."""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from orchestrator.websocket_protocol import StrictProtocol

TEXT = 0x81  # a whole text message; servers do not mask
COMPRESSED = 0x40  # permessage-deflate (RFC 7692)
DROPS_BACKLOG = frozenset({4008})
STUCK = 5.0  # seconds that a write under way gets before the connection is closed over it


class SocketTransport:
    """One connection's way out (`actors.transport.Transport`).

    At most one write is under way; what comes meanwhile is joined into the next, so a slow reader
    costs one buffer and no pile of futures.
    """

    def __init__(self, handler: WebSocketHandler, protocol: StrictProtocol) -> None:
        self._handler = handler
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._is_scheduled = False
        self._is_writing = False
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        self._close: tuple[int, str] | None = None
        self.queued = 0
        self.sent = 0

    def write(self, frames: Sequence[bytes]) -> None:
        if self._close is not None:
            return
        for frame in frames:
            self._pending.append(frame)
            self.queued += len(frame)
        self._schedule()

    def when_drained(self, callback: Callable[[], None]) -> None:
        if self.sent >= self.queued:
            callback()
        else:
            self._waiters.append((self.queued, callback))

    def close(self, code: int, reason: str) -> None:
        if self._close is not None:
            return
        self._close = (code, reason)
        if code in DROPS_BACKLOG:
            self._pending.clear()
            self._loop.call_soon(self._handler.close, code, reason)
        elif self._is_writing:  # to a client that may never read on
            self._loop.call_later(STUCK, self._handler.close, code, reason)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_writing:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        frames, self._pending = self._pending, []
        if frames and not self._protocol.is_closing():
            upto = self.queued
            try:
                written = self._send(frames)
            except (StreamClosedError, WebSocketClosedError):
                return  # the handler's on_close tells the actor
            self._is_writing = not written.done()
            if self._is_writing:
                written.add_done_callback(partial(self._on_written, upto))
            else:
                self._on_written(upto, written)
        if self._close is not None and not self._is_writing:
            code, reason = self._close
            self._handler.close(code, reason)

    def _send(self, frames: Sequence[bytes]) -> "asyncio.Future[Any]":
        """Hands frames to the socket, all in one write."""
        compressor = self._protocol._compressor
        first = TEXT if compressor is None else TEXT | COMPRESSED
        parts: list[bytes] = []
        for frame in frames:
            payload = frame if compressor is None else compressor.compress(frame)
            parts.append(_header(first, len(payload)))
            parts.append(payload)
        return self._protocol.stream.write(b"".join(parts))

    def _on_written(self, upto: int, written: "asyncio.Future[Any]") -> None:
        self._is_writing = False
        with contextlib.suppress(StreamClosedError, WebSocketClosedError, asyncio.CancelledError):
            written.result()
            self.sent = upto
            waiters, self._waiters = self._waiters, []
            for due, callback in waiters:
                if self.sent >= due:
                    callback()
                else:
                    self._waiters.append((due, callback))
            if self._pending or self._close is not None:
                self._schedule()


def _header(first: int, length: int) -> bytes:
    """The header of an unmasked text message (RFC 6455, section 5.2)."""
    if length < 126:
        return bytes((first, length))
    if length < 65_536:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)
