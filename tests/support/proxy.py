"""A TCP proxy that fails as networks do, to stand between the code and its Redis or its clients."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Collection
from typing import Self

from tests.support.redis_server import free_port

HELD_BYTES = 1 << 18  # that a slow way may hold before its sender has to wait


class Proxy:
    """Listens on `port`, and passes on to `upstream`, both on loopback, until it is told to fail.

    A fault holds for present and new connections until `heal`; only what was frozen stays so.
    """

    def __init__(self, upstream: int, name: str = "") -> None:
        self.name = name
        self.upstream = upstream
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.pairs: set[Pair] = set()
        self.accepted = 0
        self.latency = 0.0  # seconds, each direction
        self.rate = 0.0  # bytes per second, each direction; 0: as fast as it goes
        self.cut_replies = 0  # how many of the next chunks from upstream are lost
        self.tripped = asyncio.Event()
        self._passing_replies = 0  # chunks from upstream that come before those
        self._trip: bytes | None = None
        self._dark: Callable[[Pair], bool] | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

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
        """Resets every connection; new ones are welcome."""
        for pair in list(self.pairs):
            pair.abort()

    async def refuse(self) -> None:
        """Resets every connection and takes no new ones."""
        await self.close()

    def lead_to(self, upstream: int) -> None:
        """Resets every connection; new ones go to another server."""
        self.upstream = upstream
        self.cut()

    def blackhole(self, *, pubsub_only: bool = False) -> None:
        """Nothing passes, nothing ends. What was on its way arrives if it is healed uncut."""
        self._dark = (lambda pair: pair.is_pubsub) if pubsub_only else (lambda _: True)
        for pair in self.pairs:
            pair.pause_if_dark()

    def freeze(self, ports: Collection[int] | None = None) -> None:
        """The same for ever, for those who are connected now or whom upstream knows by these."""
        for pair in self.pairs:
            if ports is None or pair.port_upstream in ports:
                pair.is_frozen = True
                pair.pause_if_dark()

    def cut_reply(self, after: int) -> None:
        """The next `after` chunks from upstream pass; then one is lost and its connection ends."""
        self._passing_replies, self.cut_replies = after, 1

    def trip(self, word: bytes) -> None:
        """A black hole from the moment at which `word` has passed upstream: `tripped` is set."""
        self.tripped.clear()
        self._trip = word

    async def heal(self) -> None:
        self.latency = self.rate = 0.0
        self.cut_replies = self._passing_replies = 0
        self._trip = self._dark = None
        if self._server is None:
            await self.open()
        for pair in list(self.pairs):
            pair.resume()

    # Asked by the connections.

    def is_dark(self, pair: "Pair") -> bool:
        return pair.is_frozen or (self._dark is not None and self._dark(pair))

    def loses_reply(self) -> bool:
        """Whether this chunk from upstream is one that is lost."""
        if not self.cut_replies:
            return False
        if self._passing_replies:
            self._passing_replies -= 1
            return False
        self.cut_replies -= 1
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

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.near = _End(self, is_near=True)
        self.far = _End(self, is_near=False)
        self.near.other, self.far.other = self.far, self.near
        self.is_pubsub = False
        self.is_frozen = False
        self.port_upstream = 0  # ours, as upstream sees it
        self._dialling: asyncio.Task[None] | None = None

    def connected(self) -> None:
        self.proxy.accepted += 1
        self.proxy.pairs.add(self)
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        while self.proxy.is_dark(self):
            await asyncio.sleep(0.05)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: self.far, "127.0.0.1", self.proxy.upstream
            )
            self.port_upstream = transport.get_extra_info("sockname")[1]
        except OSError:
            self.abort()

    def pause_if_dark(self) -> None:
        if self.proxy.is_dark(self):
            self.near.pause()
            self.far.pause()

    def resume(self) -> None:
        if not self.proxy.is_dark(self):
            self.near.resume()
            self.far.resume()

    def abort(self) -> None:
        self.proxy.pairs.discard(self)
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
        elif self._pair not in self._pair.proxy.pairs:
            transport.abort()  # cut while it was dialled
        for data in self._early:
            transport.write(data)
        self._early.clear()
        self._pair.pause_if_dark()

    def data_received(self, data: bytes) -> None:
        proxy = self._pair.proxy
        if self._is_near:
            self._pair.is_pubsub |= b"SUBSCRIBE" in data
        elif proxy.loses_reply():
            self._pair.abort()
            return
        if not (proxy.latency or proxy.rate or self._held):
            self.other.write(data)
        else:
            self._pass_later(data)
        if self._is_near:
            proxy.passed_upstream(data)

    def _pass_later(self, data: bytes) -> None:
        """In order: a chunk never overtakes the one before it."""
        proxy, loop = self._pair.proxy, asyncio.get_running_loop()
        takes = len(data) / proxy.rate if proxy.rate else 0.0
        self._free_at = max(loop.time(), self._free_at) + takes
        # A way that was healed is fast again, but not for what is behind something still slow.
        self._due_at = max(self._due_at, self._free_at + proxy.latency)
        self._held += len(data)
        self._waiting.append(data)
        loop.call_at(self._due_at, self._pass_next)
        if self._held > HELD_BYTES:
            self.pause()

    def _pass_next(self) -> None:
        data = self._waiting.popleft()  # timers of one moment may fire in any order
        self._held -= len(data)
        self.other.write(data)
        if self._held <= HELD_BYTES and not self._pair.proxy.is_dark(self._pair):
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
        if not self._pair.proxy.is_dark(self._pair):
            self.other.resume()

    def eof_received(self) -> None:
        return None  # closes this end, which ends the pair

    def connection_lost(self, _: Exception | None) -> None:
        if self._held == 0:
            self._pair.proxy.pairs.discard(self._pair)
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
