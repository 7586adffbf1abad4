"""Becomes another program, after making sure that it will not outlive its parent.

Run by `common/processes.py` with a bare interpreter, so it imports little and nothing of ours:

    python -I -S common/dies_with_parent.py PARENT_PID WATCH_FD -- PROGRAM ARGUMENT …

On Linux the kernel kills this process when the thread that started it ends (PR_SET_PDEATHSIG,
which outlasts exec). Elsewhere, or if WATCH_FD is not -1, a watcher process waits for the end of
a pipe whose other end only the parent holds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, watch, program = int(arguments[0]), int(arguments[1]), arguments[3:]
    if watch >= 0:
        _start_watcher(watch)
    else:
        _ask_the_kernel()
    if os.getppid() != parent:
        sys.exit(f"{program[0]}: not started, the parent process has ended already")
    try:
        os.execvp(program[0], program)  # noqa: S606  what the caller asked for
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


def _ask_the_kernel() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def _start_watcher(watch: int) -> None:
    """Forks a process that kills this one when nobody holds the other end of `watch`."""
    program = os.getpid()
    if os.fork() == 0:
        os.read(watch, 1)  # returns only when the other end is closed
        # Still our parent: the id cannot have been given to another process.
        if os.getppid() == program:
            os.kill(program, signal.SIGKILL)
        os._exit(0)
    os.close(watch)


if __name__ == "__main__":
    main(sys.argv[1:])
