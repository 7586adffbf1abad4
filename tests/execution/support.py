"""Stands in for the orchestrator, as far as section 5 of the contract shows it to a worker."""

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from redis import exceptions
from redis.asyncio import Redis

from common.domain.ids import TaskId
from common.queues.keys import WORK_GROUP, Keys
from execution import Worker, WorkerSettings
from tests.support import canary
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds after which a test has failed


class Told(NamedTuple):
    """A callback as it arrived."""

    attempt: int
    seq: int
    type: str
    data: dict[str, Any]


class Orchestrator:
    """Adds work entries and reads callbacks, over a connection of its own."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.keys = Keys(prefix)
        self.redis: Any = Redis.from_url(url, protocol=2)
        self._read: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.make_groups()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    async def make_groups(self) -> None:
        for stream in self.keys.work_streams:
            with contextlib.suppress(exceptions.ResponseError):
                await self.redis.xgroup_create(stream, WORK_GROUP, "0", mkstream=True)

    def stream_of(self, task_id: str) -> str:
        """Callbacks of each task in a stream of their own, so that a test sees only its task's."""
        return f"{self.keys.prefix}callbacks-of:{task_id}"

    async def now_ms(self) -> int:
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def submit(
        self, agent: str, message: str = "hello", *, priority: str = "normal", **fields: Any
    ) -> str:
        """Adds a task; `fields` go into the action, `deadline_in` (seconds) makes its deadline."""
        task_id = str(fields.pop("task_id", uuid.uuid4()))
        deadline = await self.now_ms() + int(fields.pop("deadline_in", 60) * 1000)
        action = {
            "action_type": "chat.send_message",
            "action_id": task_id,
            "tenant_id": "acme",
            "session_id": "s1",
            "agent_id": agent,
            "message": message,
            "callback_stream": self.stream_of(task_id),
            "deadline": deadline,
            "max_attempts": 3,
            "visibility_timeout_ms": 60_000,
            **fields,
        }
        await self.add(priority, {"task_id": task_id, "action": orjson.dumps(action)})
        return task_id

    async def add(self, priority: str, entry: Mapping[str, Any]) -> str:
        stream = f"{self.keys.prefix}execute:{priority}"
        entry_id: bytes = await self.redis.xadd(stream, dict(entry))
        return entry_id.decode()

    async def next_callbacks(self, task_id: str) -> list[Told]:
        """Those that were not read yet; waits for one at least."""
        stream = self.stream_of(task_id)
        async with asyncio.timeout(PATIENCE):
            while True:
                after = self._read.get(stream, "0")
                found = await self.redis.xread({stream: after}, block=1000)
                if found:
                    break
        entries = found[0][1]
        self._read[stream] = entries[-1][0].decode()
        return [_told(fields) for _, fields in entries]

    async def callbacks(self, task_id: str, until: str | None = None) -> list[Told]:
        """All up to a terminal one, or up to one of type `until`, or whose text ends with it."""
        told: list[Told] = []
        async with asyncio.timeout(PATIENCE):
            while not any(_ends(each, until) for each in told):
                told += await self.next_callbacks(task_id)
        return told

    async def cancel(
        self, task_id: str, reason: str = "", *, publish: bool = True, set_key: bool = True
    ) -> None:
        """By the key and by the channel; a test may leave out one of them."""
        if set_key:
            await self.redis.set(self.keys.cancel(TaskId(task_id)), reason, ex=86_400)
        if publish:
            said = {"type": "cancel", "task_id": task_id, "reason": reason}
            await self.redis.publish(self.keys.control, orjson.dumps(said))

    async def left(self) -> tuple[int, int]:
        """How many entries are in the work streams, and how many of them are pending."""
        length = pending = 0
        for stream in self.keys.work_streams:
            length += await self.redis.xlen(stream)
            pending += (await self.redis.xpending(stream, WORK_GROUP))["pending"]
        return length, pending

    async def emptied(self) -> None:
        """Returns once no entry is left: the worker removes one after its terminal callback."""
        async with asyncio.timeout(PATIENCE):
            while await self.left() != (0, 0):
                await asyncio.sleep(0.01)

    async def consumers(self) -> set[str]:
        found: set[str] = set()
        for stream in self.keys.work_streams:
            for consumer in await self.redis.xinfo_consumers(stream, WORK_GROUP):
                found.add(consumer["name"].decode())
        return found


def _told(fields: Mapping[bytes, bytes]) -> Told:
    assert set(fields) == {
        *(b"task_id", b"tenant_id", b"session_id"),
        *(b"attempt", b"seq", b"type", b"data"),
    }
    return Told(
        int(fields[b"attempt"]),
        int(fields[b"seq"]),
        fields[b"type"].decode(),
        orjson.loads(fields[b"data"]),
    )


def _ends(told: Told, until: str | None) -> bool:
    if until is None:
        return told.type in {"completed", "failed", "cancelled"}
    return told.type == until or str(told.data.get("text", "")).endswith(until)


def types(told: list[Told]) -> list[str]:
    return [each.type for each in told]


def text(told: list[Told]) -> str:
    return "".join(each.data["text"] for each in told if each.type == "delta")


def settings_for(orchestrator: Orchestrator, **changes: Any) -> WorkerSettings:
    values = {"redis_url": orchestrator.url, "key_prefix": orchestrator.keys.prefix, "name": "test"}
    return WorkerSettings(**{**values, **changes})


@asynccontextmanager
async def running(
    worker: Worker, orchestrator: Orchestrator, **changes: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """The worker runs in this process while entered, and is stopped in an orderly way after it."""
    task = asyncio.create_task(worker.run(settings_for(orchestrator, **changes)))
    try:
        yield task
    finally:
        worker.stop()
        async with asyncio.timeout(PATIENCE):
            await task


@asynccontextmanager
async def at_work(
    redis_server: RedisServer, prefix: str, worker: Worker
) -> AsyncIterator[Orchestrator]:
    """The orchestrator that a worker works for, which runs in this process while entered."""
    async with (
        Orchestrator(redis_server.url, prefix) as orchestrator,
        running(worker, orchestrator),
    ):
        yield orchestrator


class Process:
    """A worker as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self._heard = b""

    @classmethod
    async def start(
        cls, *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> Self:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "execution", *arguments),
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    @classmethod
    async def for_orchestrator(cls, orchestrator: Orchestrator, *arguments: str) -> Self:
        return await cls.start(
            *("--redis-url", orchestrator.url, "--key-prefix", orchestrator.keys.prefix),
            *arguments,
        )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def said(self, event: str) -> None:
        """Returns once a line of its log has these words."""
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while event.encode() not in (line := await self._process.stderr.readline()):
                assert line, f"it ended without {event}: {self._heard!r}"
                self._heard += line
        self._heard += line

    async def ended(self) -> tuple[int, str, str]:
        """Waits for its end: exit status, stdout, stderr."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self._process.communicate()
        err = self._heard + err
        assert self._process.returncode is not None
        canary.look("output of a worker", out + err)
        return self._process.returncode, out.decode(), err.decode()

    async def kill(self) -> None:
        """Ends it for good, if it has not ended yet."""
        if self._process.returncode is None:
            self._process.kill()
            await self.ended()
