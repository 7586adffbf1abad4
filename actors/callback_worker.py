"""The way out begins here: what workers report is read, and applied to the sessions' logs."""

from collections.abc import Sequence

import structlog

from actors.counters import Counters
from actors.stream_worker import StreamWorkerActor
from common.domain.callbacks import DeadReason
from common.queues.callbacks import CallbackQueue
from common.queues.streams import Entry
from config.settings import CallbackSettings

log = structlog.get_logger(__name__)


class CallbackWorkerActor(StreamWorkerActor):
    """Applies callbacks in batches: one script a session, all of them in one round trip.

    Each instance runs one. Which of them reads an entry does not matter, nor whether two do.
    """

    what = "callbacks"

    def __init__(
        self, callbacks: CallbackQueue, counters: Counters, settings: CallbackSettings
    ) -> None:
        super().__init__(
            callbacks.stream,
            counters,
            batch=settings.batch,
            poll_seconds=settings.poll_seconds,
            claim_idle=settings.claim_idle,
        )
        self._callbacks = callbacks

    async def handle(self, entries: Sequence[Entry]) -> None:
        applied = await self._callbacks.apply(entries)
        self._counters.callbacks.update(applied.outcomes)
        self._counters.dead_callbacks.update(applied.dead)
        if applied.dead:
            log.warning("callbacks.set_aside", **applied.dead)

    async def set_aside(self, entry: Entry) -> None:
        await self._callbacks.set_aside(entry)
        self._counters.dead_callbacks[DeadReason.UNREADABLE] += 1
