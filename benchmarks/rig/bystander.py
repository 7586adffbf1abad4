"""Someone innocent, connected while others misbehave: pongs and answers have to keep coming."""

import asyncio
import contextlib
import time

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PING_EVERY = 0.1  # seconds
ASK_EVERY = 10  # pings
WITHIN = 10.0  # seconds; later is never


class Bystander:
    """Pings ten times a second, and asks its agent once a second."""

    def __init__(self) -> None:
        self.pongs = 0
        self.answers = 0
        self.slowest_pong = 0.0  # seconds
        self.slowest_answer = 0.0  # seconds
        self.complaint: str | None = None

    async def run(self, port: int, until: asyncio.Event) -> None:
        """Goes on until then, or until something is not as it must be: see `complaint`."""
        url = f"ws://127.0.0.1:{port}/ws/bystander/calm"
        try:
            async with connect(url, proxy=None, compression=None) as socket:
                while not until.is_set():
                    await self._ping(socket)
                    if self.pongs % ASK_EVERY == 0:
                        await self._ask(socket)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(until.wait(), PING_EVERY)
        except ConnectionClosed as error:
            self.complaint = f"its connection was closed: {error}"
        except TimeoutError:
            self.complaint = f"nothing came within {WITHIN:g} s"

    async def _ping(self, socket: ClientConnection) -> None:
        began = time.monotonic()
        await socket.send('{"type":"ping"}')
        await self._until(socket, "pong")
        self.pongs += 1
        self.slowest_pong = max(self.slowest_pong, time.monotonic() - began)

    async def _ask(self, socket: ClientConnection) -> None:
        began = time.monotonic()
        data = {"agent_id": "echo", "message": "still there?", "context": {"delay_ms": 0}}
        await socket.send(orjson.dumps({"type": "chat.send_message", "data": data}).decode())
        await self._until(socket, "agent_response")
        self.answers += 1
        self.slowest_answer = max(self.slowest_answer, time.monotonic() - began)

    async def _until(self, socket: ClientConnection, type_: str) -> None:
        async with asyncio.timeout(WITHIN):
            while orjson.loads(await socket.recv())["type"] != type_:
                pass
