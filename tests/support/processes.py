"""Looking at processes that are not ours, or no longer: has it ended, and when?"""

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

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


async def word_from(process: asyncio.subprocess.Process) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), WITHIN)).decode().strip()
