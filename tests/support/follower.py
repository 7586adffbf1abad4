"""A client that resumes and minds every offset, and an execution service that answers by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from redis import exceptions
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.client import WITHIN, Address, Frame
from tests.support.fake_executor import FakeExecutor
from tests.support.service import Running, running_service

COME_BACK = 0.05  # seconds


async def end(task: "asyncio.Task[None]") -> None:
    """Cancels until it has ended, for what it awaits may swallow that; raises what it raised."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=1)
    if not task.cancelled() and (error := task.exception()):
        raise error


class Follower:
    """Follows one session over any number of connections, to any instance.

    What it has seen is `events`; a hole or a repetition fails at once, as does a connection that
    cannot resume. `closes` are the codes that its connections were closed with.
    """

    def __init__(self, session: str = "acme/s-1") -> None:
        self.session = session
        self.epoch: str | None = None
        self.offset = 0
        self.events: list[Frame] = []
        self.other: list[Frame] = []  # frames without an offset
        self.closes: list[int | None] = []
        self.connected = asyncio.Event()
        self._news = asyncio.Condition()

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        """What the agents have streamed, as a client shows it: a reset forgets."""
        text = ""
        for event in self.events:
            if event["data"].get("reset"):
                text = ""
            if event["type"] == "agent_delta":
                text += event["data"]["text"]
        return text

    @contextlib.asynccontextmanager
    async def following(self, *addresses: Address) -> AsyncIterator["Follower"]:
        """Connected to one of these as long as the block runs; to the next after each close."""
        task = asyncio.create_task(self._follow(addresses))
        try:
            await self._connected(task)
            yield self
        finally:
            await end(task)

    async def _connected(self, task: "asyncio.Task[None]") -> None:
        connected = asyncio.ensure_future(self.connected.wait())
        async with asyncio.timeout(WITHIN):
            await asyncio.wait((task, connected), return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        if task.done():
            task.result()

    async def until(self, is_so: Callable[[], object], within: float = WITHIN) -> None:
        """Returns once it is so, looking after each frame."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(is_so)

    async def ended(self, count: int = 1, within: float = WITHIN) -> None:
        """Returns once so many tasks of the session have completed."""
        await self.until(lambda: self.types.count("agent_response") >= count, within)

    async def _follow(self, addresses: tuple[Address, ...]) -> None:
        turn = 0
        while True:
            address = addresses[turn % len(addresses)]
            turn += 1
            with contextlib.suppress(OSError, InvalidHandshake, TimeoutError, ConnectionClosed):
                await self._read(address)
            self.connected.clear()
            await asyncio.sleep(COME_BACK)

    async def _read(self, address: Address) -> None:
        known = {} if self.epoch is None else {"epoch": self.epoch, "offset": self.offset}
        query: dict[str, Any] = known or {"offset": 0}
        async with address.connect(self.session, {"close_timeout": 1}, **query) as socket:
            try:
                ack = orjson.loads(await socket.recv())
                assert ack["type"] == "connection_ack", ack
                assert ack["data"]["recovered"], f"not recovered: {query} {ack}"
                self.epoch = ack["data"]["epoch"]
                self.connected.set()
                while True:
                    await self._take(orjson.loads(await socket.recv()))
            finally:
                self.closes.append(socket.close_code)

    async def _take(self, frame: Frame) -> None:
        offset = frame.get("offset")
        if offset is None:
            self.other.append(frame)
        else:
            assert offset == self.offset + 1, f"{offset} after {self.offset}: a hole, or one twice"
            self.offset = offset
            self.events.append(frame)
        async with self._news:
            self._news.notify_all()


@contextlib.asynccontextmanager
async def followed(
    redis_url: str, prefix: str
) -> AsyncIterator[tuple[Running, FakeExecutor, Follower]]:
    """A service, the executor beside it, and one who follows the service's session `acme/s-1`."""
    follower = Follower()
    async with (
        running_service(redis_url, prefix) as service,
        FakeExecutor(redis_url, prefix) as executor,
        follower.following(service),
    ):
        yield service, executor, follower


@contextlib.asynccontextmanager
async def answering(executor: FakeExecutor, *texts: str, pause: float = 0.0) -> AsyncIterator[None]:
    """Has every task answered with these texts, one after the other, as long as the block runs."""

    async def answer() -> None:
        while True:
            with contextlib.suppress(TimeoutError, exceptions.ConnectionError):
                task = await executor.take()
                await executor.report(task, "started")
                for text in texts:
                    await asyncio.sleep(pause)
                    await executor.report(task, "delta", {"text": text})
                await executor.complete(task, "".join(texts))

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        await end(task)


async def eventually(is_so: Callable[[], Any], within: float = WITHIN) -> None:
    """Looks often, for what tells nobody when it happens."""
    async with asyncio.timeout(within):
        while True:
            found = is_so()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.02)
