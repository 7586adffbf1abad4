"""How a worker speaks with Redis, and what it makes of an answer that does not come."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from redis import exceptions

from common.domain.errors import RedisUnavailable, TemporaryError
from common.queues.redis import Redis, meaning_of
from common.queues.refusals import attempt, why_refused
from common.queues.scripts import Command, Script, Value
from common.queues.streams import is_missing_group
from common.queues.work_entries import GroupMissing, RedisRefused

log = structlog.get_logger(__name__)


class WorkConnection:
    """Sends what a worker asks for, and tells the log when Redis goes and returns, once each.

    Every method raises `RedisUnavailable` (or another `TemporaryError`) if it may not have
    happened.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._away = False

    async def greet(self, readable: str, writable: str) -> None:
        """Finds out whether Redis would have us at all; the keys are such as we have to read and
        to write. Nothing is written: there is no such key.

        Raises:
            RedisRefused: if it would not. A Redis that is away may still come.
        """
        try:
            await attempt(self._redis, [("TIME",), ("GET", readable), ("SET", writable, "", "XX")])
        except TemporaryError as error:
            if why := why_refused(error):
                raise RedisRefused(why) from error

    async def send(self, *commands: Command) -> list[Any]:
        """One reply for each command, in order."""
        with self.answering():
            return await self._redis.call_all(commands)

    async def report(self, commands: Sequence[Command]) -> list[Any]:
        """The same, but a command that Redis refused has its error as reply."""
        with self.answering():
            return await self._redis.batch(commands)

    async def eval(self, body: Script, keys: Sequence[str], *args: Value) -> Any:
        """Runs a script; to be entered from within `answering`."""
        # Short and rare: their text is sent along, so that a restarted Redis knows them.
        return await self._redis.call("EVAL", body.body, len(keys), *keys, *args)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turns redis-py's errors into ours, and tells the log when Redis goes and returns."""
        try:
            yield
        except exceptions.ResponseError as error:
            if is_missing_group(error):
                raise GroupMissing from error
            raise self._lost(meaning_of(error) or error, error) from error
        except (exceptions.RedisError, OSError, TimeoutError) as error:
            raise self._lost(meaning_of(error) or RedisUnavailable(), error) from error
        except TemporaryError as error:
            self._lost(error, error.__cause__ or error)
            raise
        if self._away:
            self._away = False
            log.info("redis.returned")

    def _lost(self, meaning: Exception, cause: BaseException) -> Exception:
        if not self._away:
            self._away = True
            log.warning("redis.lost", error=f"{type(cause).__name__}: {cause}")
        return meaning
