"""Connections to Redis, chosen for each use, and what its errors mean.

redis-py by itself repeats a command whose reply was lost, which doubles writes, and waits for
minutes on a dead peer. Here nothing is repeated behind the caller's back, every command ends
within `socket_timeout` or raises `RedisUnavailable`, and a write that may or may not have happened
is safe to send again because it is a script that can tell.
"""

import asyncio
import re
import ssl
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
import structlog
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from common.domain.errors import OrchestratorError, Overloaded, RedisUnavailable
from common.queues.scripts import Command, Script, Value, scripts_by_sha
from config import redis_url

log = structlog.get_logger(__name__)

# A reply of Redis that is about its own state, not about our command. Whole words: BUSYGROUP is not
# BUSY. Within a script the word stands in the middle of the line.
AWAY = re.compile(
    r"\b(LOADING|READONLY|MISCONF|MASTERDOWN|NOREPLICAS|BUSY|CLUSTERDOWN|TRYAGAIN|NOSCRIPT)\b"
)

# How Redis 6.2 and 7 tell, from within a script, that the user may not do this.
NO_RIGHT = re.compile(r"The user executing the script can't|ACL failure in script")
TELL_AGAIN = 60.0  # seconds between two lines about a right that is missing

# Said although the library's defaults are the same today. The URL cannot say otherwise.
TLS = {
    "ssl_cert_reqs": "required",
    "ssl_check_hostname": True,
    "ssl_min_version": ssl.TLSVersion.TLSv1_2,
}

CONNECTIONS = 32  # of one instance, at once
BREATH = 0.3  # seconds for which Redis counts as away once it was found so


def connect(url: str, *, socket_timeout: float, max_connections: int = 32) -> aioredis.Redis:
    """A client that never repeats a command by itself. Replies are bytes, RESP2 shaped.

    All connections to Redis are made here. With `rediss://` each of them is TLS 1.2 or later, the
    server's certificate and host name verified.

    Raises:
        ValueError: if the URL cannot be read, or would have less than that.
    """
    if wrong := redis_url.complaint(url):
        raise ValueError(f"the URL of Redis {wrong}")
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        protocol=2,
        max_connections=max_connections,
        timeout=socket_timeout,
        socket_timeout=socket_timeout,
        socket_connect_timeout=socket_timeout,
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        **(TLS if redis_url.is_tls(url) else {}),
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        client_name="agent-orchestrator",
        driver_info=None,  # not told: Redis 6.2 and 7.0 refuse the command, and say so in a log
    )
    client = aioredis.Redis.from_pool(pool)
    client.response_callbacks.clear()  # replies as Redis sends them, the same for all versions
    return client


def meaning_of(error: Exception) -> OrchestratorError | None:
    """What an error of redis-py means to a caller; None if it means a mistake of ours."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM command not allowed" in text:
        return Overloaded("Redis is out of memory.")
    if isinstance(error, exceptions.ResponseError) and not _is_about_itself(error, text):
        return None
    if isinstance(error, exceptions.RedisError | OSError | TimeoutError):
        return RedisUnavailable()
    return None


def is_mistake(result: Any) -> bool:
    """Whether a result is an error that no repetition will cure: something of ours is wrong."""
    return isinstance(result, Exception) and meaning_of(result) is None


def _is_about_itself(error: exceptions.ResponseError, text: str) -> bool:
    known = (
        exceptions.ReadOnlyError
        | exceptions.AuthenticationError
        | exceptions.NoScriptError  # flushed twice in a row
        | exceptions.AskError  # also MovedError: a cluster's node that is not ours
    )
    return isinstance(error, known) or AWAY.search(text) is not None or lacks_right(error)


def lacks_right(error: Any) -> bool:
    """Whether Redis let us in and then would not do this for us."""
    return isinstance(error, exceptions.NoPermissionError) or (
        isinstance(error, exceptions.ResponseError) and NO_RIGHT.search(str(error)) is not None
    )


class Redis:
    """Sends commands and scripts over a pool of short-lived uses; not for blocking reads."""

    def __init__(self, url: str, *, socket_timeout: float = 2.0) -> None:
        self.url = url
        self.socket_timeout = socket_timeout
        self._client = connect(url, socket_timeout=socket_timeout, max_connections=CONNECTIONS)
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._away_until = self._quiet_until = 0.0

    async def call(self, *command: Value) -> Any:
        """Sends one command. Raises what `batch` raises, and the command's own error."""
        return unwrap((await self.batch([command]))[0])

    async def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """As `batch`, where each has to succeed. Raises what `batch` raises, and the first error of
        a command; the others have happened all the same."""
        return [unwrap(result) for result in await self.batch(commands)]

    async def run(self, script: Script, keys: Sequence[str], *args: Value) -> Any:
        """Runs one script. Raises what `call` raises."""
        return await self.call(*script.call(keys, *args))

    async def batch(self, commands: Sequence[Command]) -> list[Any]:
        """Sends all commands in one go and returns a result each, in order.

        A command that Redis refused has its exception as result. Scripts that Redis does not know
        (a restart, a flush) are loaded and only their commands sent again.

        Raises:
            RedisUnavailable: if not all replies came; some commands may have happened.
        """
        if not commands:
            return []
        results = await self._send(commands)
        unknown = [
            i for i, result in enumerate(results) if isinstance(result, exceptions.NoScriptError)
        ]
        if unknown:
            await self._load({str(commands[i][1]) for i in unknown})
            again = await self._send([commands[i] for i in unknown])
            for i, result in zip(unknown, again, strict=True):
                results[i] = result
        if any(map(lacks_right, results)):
            self._tell(next(filter(lacks_right, results)))
        return results

    def _tell(self, lacking: Exception) -> None:
        """What otherwise looks like a Redis that is away is mended in its list of users."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + TELL_AGAIN
            log.error("redis.right_missing", error=str(lacking))

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        self._look_away()
        has_connection = False
        try:
            # Waiting for a connection, connecting and answering share one deadline.
            async with asyncio.timeout(self.socket_timeout + 0.5), self._room:
                self._look_away()
                has_connection = True
                return await self._exchange(commands)
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            if has_connection:  # else it was our own crowd that took too long
                self._away_until = loop.time() + BREATH
            raise meaning_of(error) or error from error

    def _look_away(self) -> None:
        """Who queued up behind the call that found Redis away need not wait as long again."""
        if asyncio.get_running_loop().time() < self._away_until:
            raise RedisUnavailable

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            return [await self._send_one(commands[0])]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        results: list[Any] = await pipeline.execute(raise_on_error=False)
        return results

    async def _send_one(self, command: Command) -> Any:
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except exceptions.ResponseError as error:
            return error

    async def _load(self, shas: set[str]) -> None:
        bodies = scripts_by_sha()
        for result in await self._send([("SCRIPT", "LOAD", bodies[sha].body) for sha in shas]):
            unwrap(result)

    async def close(self) -> None:
        await self._client.aclose()


def unwrap(result: Any) -> Any:
    """The result itself, or its error raised as what it means."""
    if isinstance(result, Exception):
        raise meaning_of(result) or result from result
    return result
