"""Which tasks a worker is to stop: told on the control channel, and kept in keys (section 5)."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from common.domain.errors import RedisUnavailable
from common.domain.ids import TaskId
from common.queues.keys import Keys
from common.queues.redis import connect
from common.queues.work_connection import WorkConnection

HEAR_SECONDS = 1.0  # the longest one read of the channel waits


class Cancellations:
    """A worker's ear for cancellations, over a connection of its own, and its look at the keys."""

    def __init__(
        self, connection: WorkConnection, keys: Keys, url: str, *, socket_timeout: float
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._socket_timeout = socket_timeout
        self._listener = connect(url, socket_timeout=socket_timeout, max_connections=1)

    async def kept(self, task_ids: Sequence[TaskId]) -> dict[TaskId, str]:
        """Those of the tasks that are to be stopped, with the reasons."""
        found = await self._connection.send(
            *(("GET", self._keys.cancel(task_id)) for task_id in task_ids)
        )
        pairs = zip(task_ids, found, strict=True)
        return {
            task_id: value.decode(errors="replace") for task_id, value in pairs if value is not None
        }

    @asynccontextmanager
    async def told(self) -> AsyncIterator[AsyncIterator[tuple[TaskId, str]]]:
        """Subscribed to the control channel while entered; gives cancellations as they are told.

        A hint only: what was said while Redis was away is found by `kept`.
        """
        pubsub = self._listener.pubsub(ignore_subscribe_messages=False)
        try:
            with self._connection.answering():
                await pubsub.subscribe(self._keys.control)
                if await pubsub.get_message(timeout=self._socket_timeout) is None:
                    raise RedisUnavailable  # it did not confirm
            yield self._hear(pubsub)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _hear(self, pubsub: Any) -> AsyncIterator[tuple[TaskId, str]]:
        while True:
            with self._connection.answering():
                heard = await pubsub.get_message(timeout=HEAR_SECONDS)
            if heard and heard["type"] == "message":
                cancel = _cancel_message(heard["data"])
                if cancel:
                    yield cancel

    async def close(self) -> None:
        await self._listener.aclose()


def _cancel_message(data: bytes) -> tuple[TaskId, str] | None:
    """A cancellation heard on the control channel; None for anything else."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict) or said.get("type") != "cancel":
        return None
    return TaskId(str(said.get("task_id"))), str(said.get("reason") or "")
