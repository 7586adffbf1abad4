"""A TCP proxy on each way between two processes, which can be made to fail in many ways."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Self

HELD_BYTES = 1 << 18  # that a slow way may hold before its sender has to wait


class Edge:
    """One way: listens on `port`, passes on to `upstream`, both on loopback.

    All faults hold for present and new connections, until `heal`.
    """

    def __init__(self, name: str, port: int, upstream: int) -> None:
        self.name = name
        self.port = port
        self.upstream = upstream
        self.pairs: set[Pair] = set()
        self.latency = 0.0  # seconds, each direction
        self.rate = 0.0  # bytes per second, each direction; 0: as fast as it goes
        self.replies_left: int | None = None  # chunks from upstream that still pass
        self.tripped = asyncio.Event()
        self._trip: bytes | None = None
        self._dark: Callable[[Pair], bool] | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Pair(self).near, "127.0.0.1", self.port, backlog=4096, reuse_address=True
        )
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.sleep(0)

    # Faults.

    def cut(self) -> None:
        """Ends all connections at once, without a word."""
        for pair in list(self.pairs):
            pair.abort()

    async def refuse(self) -> None:
        """Cuts, and refuses new connections."""
        await self.close()

    def blackhole(self, *, pubsub_only: bool = False) -> None:
        """Nothing passes, nothing ends. What was on its way arrives if it is healed uncut."""
        self._dark = (lambda pair: pair.is_pubsub) if pubsub_only else (lambda _: True)
        for pair in self.pairs:
            pair.pause_if_dark()

    def cut_reply(self, after: int) -> None:
        """The next `after` chunks from upstream pass; then one is lost and its connection ends."""
        self.replies_left = after

    def trip(self, word: bytes) -> None:
        """A black hole from the moment at which `word` has passed upstream: `tripped` is set."""
        self.tripped.clear()
        self._trip = word

    async def heal(self) -> None:
        self.latency = self.rate = 0.0
        self.replies_left = self._trip = self._dark = None
        if self._server is None:
            await self.open()
        for pair in list(self.pairs):
            pair.resume()

    # Asked by the connections.

    def is_dark(self, pair: "Pair") -> bool:
        return self._dark is not None and self._dark(pair)

    def loses_reply(self) -> bool:
        """Whether this chunk from upstream is the one that is lost."""
        if self.replies_left is None:
            return False
        self.replies_left -= 1
        if self.replies_left >= 0:
            return False
        self.replies_left = None
        return True

    def passed_upstream(self, data: bytes) -> None:
        if self._trip is not None and self._trip in data:
            self._trip = None
            self.blackhole()
            self.tripped.set()


class Pair:
    """A connection from near (who called) to far (upstream), as two ends that write to each other.

    Data waits in its receiving transport while the way is dark: the kernel's buffers fill up and
    senders stall, as in a network that drops everything.
    """

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.near = _End(self, is_near=True)
        self.far = _End(self, is_near=False)
        self.near.other, self.far.other = self.far, self.near
        self.is_pubsub = False
        self._dialling: asyncio.Task[None] | None = None

    def connected(self) -> None:
        self.edge.pairs.add(self)
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        while self.edge.is_dark(self):  # noqa: ASYNC110  a fault's end is no event worth having
            await asyncio.sleep(0.05)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.far, "127.0.0.1", self.edge.upstream
            )
        except OSError:
            self.abort()

    def pause_if_dark(self) -> None:
        if self.edge.is_dark(self):
            self.near.pause()
            self.far.pause()

    def resume(self) -> None:
        self.near.resume()
        self.far.resume()

    def abort(self) -> None:
        self.edge.pairs.discard(self)
        if self._dialling is not None:
            self._dialling.cancel()
        self.near.abort()
        self.far.abort()


class _End(asyncio.Protocol):
    """One end of a pair. What it reads is written at the other end, now or later."""

    other: "_End"

    def __init__(self, pair: Pair, *, is_near: bool) -> None:
        self._pair = pair
        self._is_near = is_near
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # to be written here once there is a connection
        self._free_at = 0.0  # when the last chunk that was read here has been taken up
        self._due_at = 0.0  # when it has passed
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._is_near:
            self._pair.connected()
        elif self._pair not in self._pair.edge.pairs:
            transport.abort()  # cut while it was dialled
        for data in self._early:
            transport.write(data)
        self._early.clear()
        self._pair.pause_if_dark()

    def data_received(self, data: bytes) -> None:
        edge = self._pair.edge
        if self._is_near:
            self._pair.is_pubsub |= b"SUBSCRIBE" in data
        elif edge.loses_reply():
            self._pair.abort()
            return
        if not (edge.latency or edge.rate or self._held):
            self.other.write(data)
        else:
            self._pass_later(data)
        if self._is_near:
            edge.passed_upstream(data)

    def _pass_later(self, data: bytes) -> None:
        """In order: a chunk never overtakes the one before it."""
        edge, loop = self._pair.edge, asyncio.get_running_loop()
        takes = len(data) / edge.rate if edge.rate else 0.0
        self._free_at = max(loop.time(), self._free_at) + takes
        # A way that was healed is fast again, but not for what is behind something still slow.
        self._due_at = max(self._due_at, self._free_at + edge.latency)
        self._held += len(data)
        self._waiting.append(data)
        loop.call_at(self._due_at, self._pass_next)
        if self._held > HELD_BYTES:
            self.pause()

    def _pass_next(self) -> None:
        data = self._waiting.popleft()  # timers of one moment may fire in any order
        self._held -= len(data)
        self.other.write(data)
        if self._held <= HELD_BYTES and not self._pair.edge.is_dark(self._pair):
            self.resume()

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        self._is_full = True
        self.other.pause()

    def resume_writing(self) -> None:
        self._is_full = False
        if not self._pair.edge.is_dark(self._pair):
            self.other.resume()

    def eof_received(self) -> None:
        return None  # closes this end, which ends the pair

    def connection_lost(self, _: Exception | None) -> None:
        if self._held == 0:
            self._pair.edge.pairs.discard(self._pair)
            self.other.close()
        else:
            asyncio.get_running_loop().call_later(0.05, self.connection_lost, None)

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if (
            self._transport is not None
            and not self._transport.is_closing()
            and not self.other._is_full
        ):
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
