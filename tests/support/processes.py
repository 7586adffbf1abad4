"""Looking at processes that are not ours, or no longer: has it ended, and when?"""

import asyncio
import contextlib
import os
import select
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support import canary

WITHIN = 15.0  # seconds; what should happen happens in a fraction of one

PROJECT = Path(__file__).parents[2]


class Watched:
    """A process that is watched for its end, whoever its parent is now."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def has_ended(self, within: float = 0.0) -> bool:
        """True if it has, or does `within` so many seconds; a zombie has ended."""
        return bool(select.select([self._handle], [], [], within)[0])

    def close(self) -> None:
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._handle)


@contextlib.asynccontextmanager
async def service(script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another Python process that runs `script` from the project's folder; killed in the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *arguments),
        cwd=PROJECT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def worker_process(redis_url: str, prefix: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m execution` with its demo agents; killed in the end."""
    inherited = {
        name: each for name, each in os.environ.items() if not name.startswith("EXECUTION_")
    }
    with tempfile.TemporaryFile() as written:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "execution", "--redis-url", redis_url, "--key-prefix", prefix),
            cwd=PROJECT,
            env=inherited,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            written.seek(0)
            canary.look("output of a worker", written.read())


async def word_from(process: asyncio.subprocess.Process) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), WITHIN)).decode().strip()
