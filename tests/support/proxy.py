"""A TCP proxy that fails as networks do, to stand between the code and its Redis."""

import asyncio
import contextlib
from collections.abc import Collection
from types import TracebackType
from typing import Self

CHUNK = 65536


class Link:
    """One client's connection, and the server's that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.port: int = server.get_extra_info("sockname")[1]  # as the server sees it
        self.flows = asyncio.Event()
        self.flows.set()

    def abort(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self.flows.set()


class Proxy:
    """Passes bytes on, until it is told to fail. `url` leads to Redis through it.

    What fails is all there is (`refuse`, `cut`, `blackhole`), what is connected now (`freeze`), or
    the next so many replies (`cut_replies`); `heal` ends refusing, the black hole and latency. What
    was frozen stays so.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._links: set[Link] = set()
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut_replies = 0
        self.latency = 0.0  # seconds, each way
        self.accepted = 0
        self.replies = 0  # pieces of what the server said

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.refuse()
        self._is_open.set()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        """Resets every connection; new ones are welcome."""
        for link in list(self._links):
            link.abort()

    async def refuse(self) -> None:
        """Resets every connection and takes no new ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    def blackhole(self) -> None:
        """Takes everything and passes nothing on, in silence; new connections too."""
        self._is_open.clear()

    def freeze(self, ports: Collection[int] | None = None) -> None:
        """The same for those who are connected now, or whom the server knows by these ports."""
        for link in self._links:
            if ports is None or link.port in ports:
                link.flows.clear()

    def lead_to(self, port: int) -> None:
        """Cuts every connection; new ones go to another server."""
        self._server_port = port
        self.cut()

    async def heal(self) -> None:
        self.latency = 0.0
        self._is_open.set()
        if self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:  # there is no server just now
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(reader, to_server, link),
                self._pump(from_server, writer, link, is_reply=True),
            )
        finally:
            link.abort()
            self._links.discard(link)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        link: Link,
        *,
        is_reply: bool = False,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                await self._is_open.wait()
                await link.flows.wait()
                if self.latency:
                    await asyncio.sleep(self.latency)
                self.replies += is_reply
                if is_reply and self.cut_replies > 0:
                    self.cut_replies -= 1
                    break
                sink.write(chunk)
                await sink.drain()
        link.abort()
