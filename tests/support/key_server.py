"""A server of key sets for tests, that answers as a test says: late, wrong, too much, or not."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.support.certificates import Shown

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class KeyServer:
    """Answers each request with `body`, or by `answer` if a test gives it one."""

    def __init__(self) -> None:
        self.body = b""
        self.status = "200 OK"
        self.headers: dict[str, str] = {}
        self.answer: Answer = self.plainly
        self.fetches = 0
        self.asked = asyncio.Event()  # set by each request
        self.url = ""

    async def plainly(self, writer: asyncio.StreamWriter) -> None:
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(self.body)),
            "Connection": "close",
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {self.status}\r\n{head}\r\n".encode() + self.body)
        await writer.drain()

    def hold(self) -> asyncio.Event:
        """From now on it answers only once that event is set."""
        let_go = asyncio.Event()

        async def later(writer: asyncio.StreamWriter) -> None:
            await let_go.wait()
            await self.plainly(writer)

        self.answer = later
        return let_go

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                self.fetches += 1
                self.asked.set()
                await self.answer(writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # whatever it has not taken, the test is over
            raise
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def key_server(body: bytes = b"", shown: Shown | None = None) -> AsyncIterator[KeyServer]:
    """One on this machine; with TLS if it has a certificate to show."""
    server, running = KeyServer(), set[asyncio.Task[None]]()
    server.body = body

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(server.handle(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=_tls(shown))
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if shown else 'http'}://localhost:{port}/keys"
    try:
        yield server
    finally:
        listening.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _tls(shown: Shown | None) -> ssl.SSLContext | None:
    if shown is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    return context
