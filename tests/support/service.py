"""A real orchestrator for tests, in this process or in one of its own, and its two neighbours:

`running_service` and `process_service` start it, `Address` speaks to it as clients do (HTTP and
WebSocket), `FakeExecutor` is what an execution service is by section 5 of the contract alone, so
that a test decides which callback arrives when.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import orjson
import yaml
from redis import exceptions
from redis.asyncio import Redis
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed

from orchestrator.app import Phase
from orchestrator.service import Service
from tests.support import canary
from tests.support.configuration import settings_of
from tests.support.processes import PROJECT
from tests.support.redis_server import free_port

WITHIN = 15.0  # seconds; what should happen happens in a fraction of one
DRAINING = 1012
TERMINAL = ("completed", "failed", "cancelled", "timeout")

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        code: str = self.json["code"]
        return code


class Address:
    """Where an instance listens, and how to speak to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any status is an answer; redirects are not followed."""
        client = AsyncHTTPClient(force_instance=True, defaults={"user_agent": "tests"})
        try:
            response = await client.fetch(
                HTTPRequest(
                    self.address + path,
                    method=method,
                    body=body,
                    headers=dict(headers or {}),
                    follow_redirects=False,
                    allow_nonstandard_methods=True,
                    request_timeout=WITHIN,
                ),
                raise_error=False,
            )
        finally:
            client.close()
        if response.code == 599:
            raise response.error or ConnectionError(path)
        canary.look_at_answer(path, response.code, response.headers, response.body)
        return Answer(response.code, response.headers, response.body)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers=_header_names(headers))

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Posts a value as JSON, or bytes as they are. `Idempotency_Key="k"` is a header."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {"Content-Type": "application/json", **_header_names(headers)}
        return await self.request("POST", path, content, named)

    async def send(
        self, session: str = "acme/s-1", message: str = "hello", key: str = "", **fields: Any
    ) -> Answer:
        """`POST /api/chat/send` to `tenant/session`."""
        tenant_id, session_id = session.split("/")
        body = {
            "tenant_id": tenant_id,
            "session_id": session_id,
            "agent_id": "echo",
            "message": message,
            **fields,
        }
        return await self.post("/api/chat/send", body, **({"Idempotency_Key": key} if key else {}))

    async def status(self, task_id: str, tenant_id: str = "acme") -> dict[str, Any]:
        answer = await self.post("/api/chat/status", {"tenant_id": tenant_id, "task_id": task_id})
        assert answer.status == 200, answer
        task: dict[str, Any] = answer.json
        return task

    async def task_ended(self, task_id: str, tenant_id: str = "acme") -> dict[str, Any]:
        """The task's status once it is terminal. A session's frames would tell the same."""
        async with asyncio.timeout(WITHIN):
            while (task := await self.status(task_id, tenant_id))["status"] not in TERMINAL:
                await asyncio.sleep(0.02)
        return task

    async def events(self, session: str = "acme/s-1", **query: Any) -> dict[str, Any]:
        answer = await self.get(f"/api/sessions/{session}/events?{urlencode(query)}")
        assert answer.status == 200, answer
        page: dict[str, Any] = answer.json
        return page

    @contextlib.asynccontextmanager
    async def connect(
        self, session: str = "acme/s-1", options: Mapping[str, Any] | None = None, **query: Any
    ) -> AsyncIterator[ClientConnection]:
        """A WebSocket of `tenant/session`; `options` are those of the websockets package."""
        asked = f"?{urlencode(query)}" if query else ""
        async with connect_websocket(
            f"ws://127.0.0.1:{self.port}/ws/{session}{asked}",
            **{"proxy": None, "ping_interval": None, "max_size": None, **(options or {})},
        ) as socket:
            yield socket

    async def ready(self) -> None:
        """Returns once the instance says that it is ready."""
        async with asyncio.timeout(WITHIN):
            while True:
                with contextlib.suppress(OSError):
                    if (await self.get("/health/ready")).status == 200:
                        return
                await asyncio.sleep(0.05)


def _header_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


# --- Frames ---------------------------------------------------------------------------------


async def next_frame(socket: ClientConnection, within: float = WITHIN) -> Frame:
    async with asyncio.timeout(within):
        frame: Frame = orjson.loads(await socket.recv())
    return frame


async def frames_until(socket: ClientConnection, type_: str, within: float = WITHIN) -> list[Frame]:
    """All frames up to the first of that type, which is the last of them."""
    frames: list[Frame] = []
    async with asyncio.timeout(within):
        while not frames or frames[-1]["type"] != type_:
            frames.append(orjson.loads(await socket.recv()))
    return frames


async def say(socket: ClientConnection, type_: str, id_: str | None = None, **data: Any) -> None:
    """Sends a client frame."""
    frame = {"type": type_, "data": data} | ({} if id_ is None else {"id": id_})
    await socket.send(orjson.dumps(frame).decode())


async def close_code(socket: ClientConnection, within: float = WITHIN) -> int | None:
    """The code that the server closes with; frames that come before are read away."""
    async with asyncio.timeout(within):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


# --- Instances ------------------------------------------------------------------------------


def configuration(redis_url: str, prefix: str, **overrides: Any) -> str:
    """The text of a configuration file; `overrides` are sections, e.g. `websocket={...}`, or
    what stands at the top level, e.g. `default_tier=None`."""
    sections: dict[str, Any] = {
        "server": {"port": 0},
        "redis": {"url": redis_url, "key_prefix": prefix},
        "callbacks": {"poll_seconds": 0.05},  # a stop waits for the blocking reads
    }
    for name, values in overrides.items():
        is_section = isinstance(values, Mapping)
        sections[name] = {**sections.get(name, {}), **values} if is_section else values
    return yaml.safe_dump(sections)


class Running(Address):
    """An instance in this process."""

    def __init__(self, service: Service) -> None:
        super().__init__(int(service.address.rstrip("/").rpartition(":")[2]))
        self.service = service


@contextlib.asynccontextmanager
async def running_service(redis_url: str, prefix: str, **overrides: Any) -> AsyncIterator[Running]:
    """A `Service` in this process on a free port, ready; drained in the end, if it still runs.

    Sections override settings: `running_service(url, prefix, websocket={"max_connections": 2})`.
    """
    service = Service(settings_of(configuration(redis_url, prefix, **overrides)))
    await service.start()
    try:
        running = Running(service)
        await running.ready()
        yield running
    finally:
        if service.app.phase is not Phase.DRAINING:
            await service.drain()


class RunningProcess(Address):
    """An instance in a process of its own; what it says goes to the file `log_path`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log_path: Path) -> None:
        super().__init__(port)
        self.process = process
        self.pid = process.pid
        self.log_path = log_path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def said(self, event: str) -> str:
        """The first line of its log with these words, once it is there."""
        async with asyncio.timeout(WITHIN):
            while True:
                for line in self.log.splitlines():
                    if event in line:
                        return line
                await asyncio.sleep(0.02)

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exited(self, within: float = WITHIN) -> int:
        """Waits for its end: the exit status, negative for a signal."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def process_service(
    redis_url: str,
    prefix: str,
    *,
    environ: Mapping[str, str] | None = None,
    is_ready: bool = True,
    **overrides: Any,
) -> AsyncIterator[RunningProcess]:
    """`python run.py --config FILE` on a free port; killed in the end.

    With `is_ready` it is waited for until it is; one whose Redis is away never would be.
    """
    port = overrides.get("server", {}).get("port") or free_port()
    overrides = {**overrides, "server": {"port": port, **overrides.get("server", {})}}
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")
    }
    with tempfile.TemporaryDirectory(prefix="orchestrator-test-") as folder:
        config, output = Path(folder, "config.yaml"), Path(folder, "log")
        config.write_text(configuration(redis_url, prefix, **overrides))
        with output.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "run.py", "--config", str(config)),
                cwd=PROJECT,
                env={**inherited, **(environ or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        running = RunningProcess(process, port, output)
        try:
            if is_ready:
                await _ready_or_ended(running)
            yield running
        finally:
            await running.kill()
            canary.look("log of an orchestrator", running.log)
            if file := overrides.get("logging", {}).get("supervision_file"):
                canary.look("supervision file", Path(file).read_bytes())


async def _ready_or_ended(running: RunningProcess) -> None:
    ready = asyncio.ensure_future(running.ready())
    ended = asyncio.ensure_future(running.process.wait())
    await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not ready.done():
        ready.cancel()
        raise AssertionError(f"the orchestrator ended at once:\n{running.log}")
    await ready


# --- The other side of the queues -----------------------------------------------------------


@dataclass(slots=True)
class TakenTask:
    """An entry of a work stream that the executor has taken, and its newest attempt."""

    stream: str
    entry_id: bytes
    task_id: str
    action: dict[str, Any]
    attempt: int
    seq: int = 0  # of the callback that was added last


class FakeExecutor:
    """An execution service that does nothing by itself: a test takes entries and adds callbacks.

    Knows section 5 of the contract and a plain connection to Redis, nothing of ours.
    """

    GROUP = "agent-execution"

    def __init__(self, redis_url: str, prefix: str, consumer: str = "fake") -> None:
        self.prefix = prefix
        self.consumer = consumer
        self.redis: Any = Redis.from_url(redis_url, protocol=2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    def stream(self, priority: str) -> str:
        return f"{self.prefix}execute:{priority}"

    async def take(self, within: float = WITHIN) -> TakenTask:
        """The next entry, high before normal before low, its attempt counted."""
        async with asyncio.timeout(within):
            while True:
                for priority in ("high", "normal", "low"):
                    if taken := await self._take_from(self.stream(priority)):
                        return taken
                await asyncio.sleep(0.005)

    async def _take_from(self, stream: str) -> TakenTask | None:
        try:
            found = await self.redis.xreadgroup(self.GROUP, self.consumer, {stream: ">"}, count=1)
        except exceptions.ResponseError as error:
            if "NOGROUP" not in str(error):  # the orchestrator has not made it yet
                raise
            return None
        if not found:
            return None
        ((entry_id, fields),) = found[0][1]
        task_id = fields[b"task_id"].decode()
        return TakenTask(
            stream=stream,
            entry_id=entry_id,
            task_id=task_id,
            action=orjson.loads(fields[b"action"]),
            attempt=await self.count_attempt(task_id),
        )

    async def count_attempt(self, task_id: str) -> int:
        """`INCR` of the attempt counter; for a second attempt of a task, too."""
        key = f"{self.prefix}attempt:{task_id}"
        attempt, _ = await self.redis.pipeline().incr(key).expire(key, 86_400).execute()
        return int(attempt)

    async def report(
        self,
        task: TakenTask,
        type_: str,
        data: Mapping[str, Any] | bytes | None = None,
        *,
        seq: int | None = None,
        attempt: int | None = None,
        **fields: Any,
    ) -> None:
        """Adds a callback, by default with the next `seq`; `fields` replace those of the entry."""
        if seq is None:
            task.seq += 1
        entry = {
            "task_id": task.task_id,
            "tenant_id": task.action["tenant_id"],
            "session_id": task.action["session_id"],
            "attempt": task.attempt if attempt is None else attempt,
            "seq": task.seq if seq is None else seq,
            "type": type_,
            "data": data if isinstance(data, bytes) else orjson.dumps(data or {}),
            **fields,
        }
        await self.add(task, {name: each for name, each in entry.items() if each is not None})

    async def add(self, task: TakenTask, entry: Mapping[str, Any]) -> None:
        """Adds an entry as it is to the stream that the task's callbacks go to."""
        await self.redis.xadd(task.action["callback_stream"], dict(entry))

    async def finish(self, task: TakenTask) -> None:
        """Removes the entry, as a worker does after its terminal callback."""
        await self.redis.xack(task.stream, self.GROUP, task.entry_id)
        await self.redis.xdel(task.stream, task.entry_id)

    async def stream_answer(self, task: TakenTask, *texts: str) -> None:
        """`started` and a delta for each text; the end is the test's."""
        await self.report(task, "started")
        for text in texts:
            await self.report(task, "delta", {"text": text})

    async def complete(self, task: TakenTask, response: str = "done") -> None:
        await self.report(task, "completed", {"response": response})
        await self.finish(task)

    async def push(self, action: Mapping[str, Any] | bytes) -> None:
        """Adds an action to stream `P`+`actions`."""
        text = action if isinstance(action, bytes) else orjson.dumps(action)
        await self.redis.xadd(f"{self.prefix}actions", {"action": text})

    async def dead_letters(self, queue: str) -> list[dict[bytes, bytes]]:
        """Those of `execute` or `callbacks`, the oldest first."""
        return [fields for _, fields in await self.redis.xrange(f"{self.prefix}dead:{queue}")]
