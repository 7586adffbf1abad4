"""Many messages at once, and workers that do nothing but take, wait and complete, in known order.

They know section 5 of the contract and a plain connection to Redis, nothing of ours.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson
from redis.asyncio import Redis

from tests.support.client import Address, Answer

PRIORITIES = ("high", "normal", "low")
GROUP = "agent-execution"
WITHIN = 30.0  # seconds
IDLE = 0.003  # seconds between two looks at empty streams
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Start:
    """A task that a worker has taken."""

    task_id: str
    tenant_id: str
    stream: str
    entry_id: bytes
    action: dict[str, Any]


class Crew:
    """Some workers, each running `at_once` tasks for `pause` seconds; idle outside of `at_work`.

    `starts` has every task in the order in which they were taken, for one reads at a time.
    """

    def __init__(
        self, redis_url: str, prefix: str, workers: int = 2, at_once: int = 1, pause: float = 0.0
    ) -> None:
        self.prefix = prefix
        self.redis: Any = Redis.from_url(redis_url, protocol=2)
        self.starts: list[Start] = []
        self.attempts: dict[str, int] = {}
        self.ended = 0
        self._workers, self._at_once, self._pause = workers, at_once, pause
        self._reading = asyncio.Lock()
        self._is_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[Self]:
        """What a worker has in hand when the block ends, it completes first."""
        self._is_over = False
        workers = [asyncio.create_task(self._work(f"worker-{n}")) for n in range(self._workers)]
        try:
            yield self
        finally:
            self._is_over = True
            await asyncio.gather(*workers)

    async def until(self, is_so: Callable[[], object], within: float = WITHIN) -> None:
        """Returns once it is so, looking often."""
        async with asyncio.timeout(within):
            while not is_so():
                await asyncio.sleep(IDLE)

    async def has_started(self, task_id: str, within: float = WITHIN) -> int:
        """The place of a task among all that were started, once it is."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [at for at, each in enumerate(self.starts) if each.task_id == task_id]
            return bool(found)

        await self.until(is_there, within)
        return found[0]

    async def waiting(self) -> tuple[int, int]:
        """Entries of the work streams that nobody has taken, and those in workers' hands."""
        pipeline = self.redis.pipeline(transaction=True)
        for priority in PRIORITIES:
            pipeline.xlen(f"{self.prefix}execute:{priority}")
            pipeline.xpending(f"{self.prefix}execute:{priority}", GROUP)
        replies = await pipeline.execute()
        taken = sum(each["pending"] for each in replies[1::2])
        return sum(replies[::2]) - taken, taken

    def check_that_nothing_ran_twice(self) -> None:
        assert len({each.task_id for each in self.starts}) == len(self.starts)
        assert set(self.attempts.values()) <= {1}

    async def _work(self, name: str) -> None:
        while not self._is_over:
            if taken := await self._take(name):
                await self._begin(taken)
                await asyncio.sleep(self._pause)
                await self._complete(taken)
            else:
                await asyncio.sleep(IDLE)

    async def _take(self, name: str) -> list[Start]:
        taken: list[Start] = []
        async with self._reading:
            for priority in PRIORITIES:
                stream = f"{self.prefix}execute:{priority}"
                free = self._at_once - len(taken)
                if free and (found := await self._read(stream, name, free)):
                    taken += [_start(stream, *entry) for entry in found[0][1]]
            self.starts += taken
        return taken

    async def _read(self, stream: str, name: str, count: int) -> Any:
        return await self.redis.xreadgroup(GROUP, name, {stream: ">"}, count=count)

    async def _begin(self, taken: Sequence[Start]) -> None:
        counting = self.redis.pipeline(transaction=False)
        for each in taken:
            counting.incr(f"{self.prefix}attempt:{each.task_id}")
        for each, attempt in zip(taken, await counting.execute(), strict=True):
            self.attempts[each.task_id] = attempt
        reports = self.redis.pipeline(transaction=False)
        for each in taken:
            self._report(reports, each, 1, "started", {})
        await reports.execute()

    async def _complete(self, taken: Sequence[Start]) -> None:
        """In one step, so that no entry looks untaken between its ack and its deletion."""
        reports = self.redis.pipeline(transaction=True)
        for each in taken:
            self._report(reports, each, 2, "completed", {"response": "done"})
            reports.xack(each.stream, GROUP, each.entry_id)
            reports.xdel(each.stream, each.entry_id)
        await reports.execute()
        self.ended += len(taken)

    def _report(self, pipeline: Any, start: Start, seq: int, type_: str, data: Any) -> None:
        entry = {
            "task_id": start.task_id,
            "tenant_id": start.tenant_id,
            "session_id": start.action["session_id"],
            "attempt": self.attempts[start.task_id],
            "seq": seq,
            "type": type_,
            "data": orjson.dumps(data),
        }
        pipeline.xadd(start.action["callback_stream"], entry)


def _start(stream: str, entry_id: bytes, fields: dict[bytes, bytes]) -> Start:
    action = orjson.loads(fields[b"action"])
    return Start(fields[b"task_id"].decode(), action["tenant_id"], stream, entry_id, action)


@contextlib.asynccontextmanager
async def sampled(crew: Crew) -> AsyncIterator[list[tuple[int, int]]]:
    """What `Crew.waiting` says, again and again as long as the block runs."""
    samples: list[tuple[int, int]] = []
    is_over = False

    async def sample() -> None:
        while not is_over:
            samples.append(await crew.waiting())

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        is_over = True
        await task


# --- Many requests ----------------------------------------------------------------------------


async def post_all(
    address: Address, path: str, bodies: Sequence[Any], connections: int = 16
) -> list[Answer]:
    """Posts them over a few connections, pipelined; the answers in the order of the bodies."""
    shares = [range(at, len(bodies), connections) for at in range(connections)]
    answers: list[Answer | None] = [None] * len(bodies)

    async def post(share: range) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        for at in share:
            writer.write(_request(address, path, orjson.dumps(bodies[at])))
        for at in share:
            answers[at] = await _answer(reader)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(post(share) for share in shares if share))
    return [each for each in answers if each is not None]


async def flood(address: Address, sessions: Sequence[str], **fields: Any) -> list[str]:
    """A message to each `tenant/session`, all of them taken: the ids of their tasks."""
    bodies = [
        {
            "tenant_id": tenant_id,
            "session_id": session_id,
            "agent_id": "echo",
            "message": "hello",
            "if_busy": "parallel",
            **fields,
        }
        for tenant_id, session_id in (each.split("/") for each in sessions)
    ]
    answers = await post_all(address, "/api/chat/send", bodies)
    assert {each.status for each in answers} == {202}, answers[-1]
    return [each.json["task_id"] for each in answers]


def _request(address: Address, path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    assert length is not None, head
    return Answer(int(head[9:12]), {}, await reader.readexactly(int(length[1])))
