"""The execution worker with the demo agents, as a child process: what `make run` brings along."""

import asyncio
import os
import sys
from pathlib import Path

import structlog

from common.processes import ChildProcess, spawn_child
from config.settings import Settings

log = structlog.get_logger(__name__)

PROJECT = Path(__file__).resolve().parents[1]
RESTART_AFTER = 1.0  # seconds


class EmbeddedWorker:
    """One worker that is started again when it ends by itself: demo agents crash on request."""

    def __init__(self, settings: Settings, redis_url: str, address: str) -> None:
        self._grace = settings.server.drain_seconds / 2
        # The URL may hold a password, so it goes by the environment, which others cannot read.
        self._environment = {
            **os.environ,
            "EXECUTION_REDIS_URL": redis_url,
            "EXECUTION_KEY_PREFIX": settings.redis.key_prefix,
            "EXECUTION_ORCHESTRATOR_URL": address.rstrip("/"),
            "EXECUTION_LOG_FORMAT": settings.logging.format,
            "EXECUTION_DRAIN_SECONDS": str(self._grace / 2),
        }
        self._child: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._child = await self._spawn()
        self._keeper = asyncio.create_task(self._keep_running(self._child), name="worker.keeper")

    async def stop(self) -> None:
        """Lets its tasks finish, for half of `server.drain_seconds` at the most."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._child is not None:
            await self._child.stop(self._grace)

    async def _spawn(self) -> ChildProcess:
        return await spawn_child(
            sys.executable, "-m", "execution", env=self._environment, cwd=PROJECT
        )

    async def _keep_running(self, child: ChildProcess) -> None:
        while True:
            log.warning("worker.ended", status=await child.wait())
            await asyncio.sleep(RESTART_AFTER)
            child = self._child = await self._spawn()
