"""A real orchestrator for tests: in this process (`running_service`), or in one of its own
(`process_service`). What they give is an `Address`, to speak to as clients do.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.app import Phase
from orchestrator.service import Service
from tests.support import canary
from tests.support.client import WITHIN, Address
from tests.support.configuration import settings_of
from tests.support.processes import PROJECT
from tests.support.redis_server import free_port

STARTED_WITHIN = 60.0  # seconds; several that start at once share the machine


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
    ready = asyncio.ensure_future(running.ready(STARTED_WITHIN))
    ended = asyncio.ensure_future(running.process.wait())
    await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not ready.done():
        ready.cancel()
        raise AssertionError(f"the orchestrator ended at once:\n{running.log}")
    await ready
