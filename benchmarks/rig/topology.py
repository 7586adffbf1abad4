"""The processes of a bench: Redis, orchestrators, executors, and a proxy on every way."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig import http
from common import dies_with_parent
from common.processes import HAS_PRCTL
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer, free_port

PROJECT = Path(__file__).parents[2]
PREFIX = "chaos:"
VISIBILITY_SECONDS = 8
DRAIN_SECONDS = 10
READY_WITHIN = 30.0

# Timeouts short enough that what they are for happens many times in a run.
CONFIG = """\
server: {{port: {port}, drain_seconds: {drain}}}
redis: {{url: "redis://127.0.0.1:{redis}/0", key_prefix: "{prefix}"}}
websocket: {{ping_interval: 4, ping_timeout: 4, max_connections: 10000}}
execution:
  {{default_timeout: 60, visibility_timeout: {visibility}, retry_backoff: 0.5, cancel_grace: 3}}
callbacks: {{claim_idle: 2, gap_timeout: 20}}
logging: {{format: json, level: info}}
"""


class Process:
    """A program that is started, killed, frozen and started again; its output goes to a file.

    It dies with this process, so that a bench that is killed leaves nothing behind.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = {**os.environ, **environ}
        self._process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False
        self.starts = 0

    @property
    def pid(self) -> int:
        """The process must have been started."""
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        shim = (sys.executable, "-I", "-S", dies_with_parent.__file__, str(os.getpid()), "-1", "--")
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own programs
                [*(shim if HAS_PRCTL else ()), *self._command],
                cwd=PROJECT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        if self.is_running():
            os.kill(self.pid, number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.ended()

    async def ended(self, within: float = 15.0) -> int | None:
        """Its exit status; None if it has not ended in time."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._process.poll() is None:  # noqa: ASYNC110  no event tells of it
                    await asyncio.sleep(0.02)
        return self._process.poll()

    async def stop(self, within: float) -> int | None:
        """Asks it to end; after `within` seconds it is killed, and None is returned."""
        self.send(signal.SIGTERM)
        status = await self.ended(within)
        if status is None:
            await self.kill()
        return status

    def freeze(self) -> None:
        self.is_frozen = True
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.is_frozen = False
        self.send(signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Member:
    """A process with the ways on which others reach it, and on which it reaches Redis."""

    process: Process
    redis_edge: Proxy
    port: int = 0  # its own; clients go by the edge
    client_edge: Proxy | None = None

    @property
    def name(self) -> str:
        return self.process.name


class Topology:
    """Everything that runs, in one folder: its logs, journals and configurations."""

    def __init__(
        self,
        folder: Path,
        *,
        instances: int = 3,
        executors: int = 2,
        workers: int = 1,
        seed: int = 0,
        redis_options: Sequence[str] = ("--appendfsync", "always"),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`executors` are the bench's own, `workers` the project's; `environ` is of instances."""
        self.name = "everything"
        self.folder = folder
        self.redis = RedisServer(*redis_options)
        self._seed = seed
        self._environ = {} if environ is None else environ
        self.instances = [self._instance(number) for number in range(1, instances + 1)]
        self.executors = [self._executor(number) for number in range(1, executors + 1)]
        self.executors += [self._worker(number) for number in range(1, workers + 1)]

    @property
    def members(self) -> list[Member]:
        return [*self.instances, *self.executors]

    @property
    def client_edges(self) -> list[Proxy]:
        return [each.client_edge for each in self.instances if each.client_edge is not None]

    @property
    def edges(self) -> list[Proxy]:
        return [*(each.redis_edge for each in self.members), *self.client_edges]

    def client_ports(self) -> list[int]:
        """Where clients reach the instances."""
        return [edge.port for edge in self.client_edges]

    def logs(self) -> list[Path]:
        """What the project's own programs have said."""
        workers = [each for each in self.executors if each.process.name.startswith("worker")]
        return [each.process.log for each in (*self.instances, *workers)]

    # Starting and stopping.

    async def start(self) -> None:
        """Returns when all instances are ready."""
        await asyncio.to_thread(self.redis.start)
        for edge in self.edges:
            await edge.open()
        for member in self.members:
            member.process.start()
        await asyncio.gather(*map(self.ready, self.instances))

    async def ready(self, member: Member, within: float = READY_WITHIN) -> None:
        """Returns when this instance is; asked directly, not by its edge."""
        async with asyncio.timeout(within):
            while True:
                with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
                    if (await http.get(member.port, "/health/ready", within=2.0)).status == 200:
                        return
                if not member.process.is_running():
                    raise RuntimeError(f"{member.name} has ended: see {member.process.log}")
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends all, in order; whatever state it is in."""
        for member in self.members:
            if member.process.is_running():
                member.process.thaw()
                member.process.send(signal.SIGTERM)
        for member in self.members:
            if member.process.starts and await member.process.ended(5.0) is None:
                await member.process.kill()
        for edge in self.edges:
            await edge.close()
        await asyncio.to_thread(self.redis.__exit__)

    # What there is.

    def _instance(self, number: int) -> Member:
        name = f"orchestrator-{number}"
        port = free_port()
        redis_edge = Proxy(self.redis.port, f"{name} to redis")
        config = self.folder / f"{name}.yaml"
        facts = {"drain": DRAIN_SECONDS, "prefix": PREFIX, "visibility": VISIBILITY_SECONDS}
        config.write_text(CONFIG.format(port=port, redis=redis_edge.port, **facts))
        command = (sys.executable, "run.py", "--config", str(config))
        process = Process(name, command, self.folder / f"{name}.log", self._environ)
        return Member(process, redis_edge, port, Proxy(port, f"clients to {name}"))

    def _executor(self, number: int) -> Member:
        name = f"executor-{number}"
        edge = Proxy(self.redis.port, f"{name} to redis")
        module = ("-m", "benchmarks.rig.executor", "--redis-port", str(edge.port))
        command = (sys.executable, *module, *("--prefix", PREFIX), *("--seed", str(self._seed)))
        visibility = ("--visibility-ms", str(VISIBILITY_SECONDS * 1000))
        journal = ("--journal", str(self.folder / f"{name}.jsonl"))
        log = self.folder / f"{name}.log"
        return Member(Process(name, (*command, *visibility, *journal), log, {}), edge)

    def _worker(self, number: int) -> Member:
        name = f"worker-{number}"
        edge = Proxy(self.redis.port, f"{name} to redis")
        agents = ("-m", "execution", "--agents", "benchmarks.rig.agent")
        url = ("--redis-url", f"redis://127.0.0.1:{edge.port}/0", "--key-prefix", PREFIX)
        # Small, so that most tasks go to the executors that write down what they send.
        options = ("--concurrency", "16", "--drain-seconds", "3", "--log-format", "json")
        command = (sys.executable, *agents, *url, *options)
        return Member(Process(name, command, self.folder / f"{name}.log", {}), edge)
