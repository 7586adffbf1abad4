"""What all actors share that live by reading a stream: read, handle, read again."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import structlog

from actors.counters import Counters
from actors.loop_actor import LoopActor
from common.domain.errors import TemporaryError
from common.failpoints import failpoint
from common.queues.streams import ConsumerStream, Entry

log = structlog.get_logger(__name__)

RETRY_AFTER = 0.5  # seconds between looks while Redis is away
CLAIM_EVERY = 1.0
GIVE_UP_AFTER = 3  # deliveries of an entry that fails by itself


class ReadAgain:
    """Told by the actor to itself."""


class StreamWorkerActor(LoopActor):
    """Reads new entries, and claims those that an instance took and never finished.

    It takes no more than it can handle: the next read comes after the last batch is done. While
    Redis is away it waits and tries again. At its start, and after each interruption, it first
    finishes what it had taken. An entry that fails keeps no other from being handled; it is tried
    again when it is claimed, and set aside in the end.
    """

    what: ClassVar[str]

    def __init__(
        self,
        stream: ConsumerStream,
        counters: Counters,
        *,
        batch: int,
        poll_seconds: float,
        claim_idle: float,
    ) -> None:
        super().__init__()
        self._stream = stream
        self._counters = counters
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._claim_idle = claim_idle
        self._claimed_at = 0.0
        self._away = False
        self._has_unfinished = True  # perhaps, of an instance of this actor that failed

    @abstractmethod
    async def handle(self, entries: Sequence[Entry]) -> None:
        """Handles and finishes a batch. May get an entry again that it has finished before."""

    @abstractmethod
    async def set_aside(self, entry: Entry) -> None:
        """Keeps an entry that cannot be handled where it can be looked at, and finishes it."""

    def on_start(self) -> None:
        failpoint(f"{self.what}.on_start")
        self.actor_ref.notify(ReadAgain())

    async def on_receive(self, _: ReadAgain) -> None:
        failpoint(f"{self.what}.on_receive")
        try:
            await self._work()
        except TemporaryError as error:
            self._note_away(error)
            await asyncio.sleep(RETRY_AFTER)
        else:
            self._note_back()
        self.actor_ref.notify(ReadAgain())

    async def on_stop(self) -> None:
        await self._stream.leave()

    async def on_failure(self, *_: object) -> None:
        await self._stream.close()

    async def _work(self) -> None:
        if self._has_unfinished:
            await self._handle(await self._stream.unfinished(self._batch))
            self._has_unfinished = False
        if self._stream.has_more_to_claim or time.monotonic() - self._claimed_at >= CLAIM_EVERY:
            self._claimed_at = time.monotonic()
            claimed = await self._stream.claim(self._claim_idle, self._batch)
            if claimed:
                log.info(f"{self.what}.claimed", count=len(claimed))
                await self._handle(claimed)
        # Page by page, and between two of them what is new.
        wait = 0 if self._stream.has_more_to_claim else self._poll_seconds
        entries = await self._stream.read(self._batch, wait)
        failpoint(f"{self.what}.after_read")
        await self._handle(entries)

    async def _handle(self, entries: Sequence[Entry]) -> None:
        """All together; if that fails, each alone."""
        try:
            if entries:
                await self.handle(entries)
            return
        except TemporaryError:
            raise
        except Exception as error:  # noqa: BLE001  # of one of them, perhaps
            if len(entries) == 1:
                await self._put_off(entries[0], error)
                return
        for entry in entries:
            await self._handle([entry])

    async def _put_off(self, entry: Entry, error: Exception) -> None:
        """Leaves an entry to be claimed again, unless it has failed often enough."""
        self.contain(error, entry)
        if await self._stream.deliveries(entry) >= GIVE_UP_AFTER:
            log.error(f"{self.what}.given_up", entry_id=entry.id.decode(), error=repr(error))
            await self.set_aside(entry)

    def _note_away(self, error: TemporaryError) -> None:
        self._has_unfinished = True
        if not self._away:
            log.warning(f"{self.what}.interrupted", error=error.code)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.info(f"{self.what}.resumed")
        self._away = False
