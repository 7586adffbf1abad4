"""Child processes that never outlive the service, not even if it is killed with SIGKILL."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_SHIM = Path(__file__).with_name("dies_with_parent.py")

HAS_PRCTL = sys.platform == "linux"


class ChildProcess:
    """A running child, in a process session of its own: Ctrl-C on a terminal does not reach it."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline: int | None) -> None:
        self._process = process
        self._lifeline = lifeline

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Waits for its end and returns the exit status. Any number may wait."""
        status = await self._process.wait()
        self._cut_lifeline()
        return status

    async def stop(self, grace: float) -> int:
        """Asks it to end (SIGTERM), kills it after `grace` seconds, and returns its exit status."""
        self._signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            self.kill()
            return await self.wait()

    def kill(self) -> None:
        """SIGKILL; nothing happens if it has ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _cut_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


async def spawn_child(
    *argv: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | int | None = None,
    keep_open: Sequence[int] = (),
    watched: bool = not HAS_PRCTL,
) -> ChildProcess:
    """Starts a program that ends when this process does, however this process ends.

    `output` takes its standard output and error (None: ours); `keep_open` are descriptors that it
    inherits; `watched` uses a watcher process instead of the kernel.

    Must be called on the main thread: the kernel's promise is bound to the thread that started the
    child, so that thread has to live as long as the service.

    A program that cannot be started ends at once with status 1 and says why on its error output.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("spawn_child must be called on the main thread")
    end, lifeline = os.pipe() if watched else (-1, None)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), str(end), "--", *argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            pass_fds=(*keep_open, *([end] if watched else [])),
            start_new_session=True,
        )
    except BaseException:
        if lifeline is not None:
            os.close(lifeline)
        raise
    finally:
        if watched:
            os.close(end)
    return ChildProcess(process, lifeline)
