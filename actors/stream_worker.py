"""What all actors share that live by reading a stream: read, handle, read again."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import structlog

from actors.counters import Counters
from actors.loop_actor import LoopActor
from common.domain.errors import OrchestratorError
from common.queues.streams import ConsumerStream, Entry

log = structlog.get_logger(__name__)

RETRY_AFTER = 0.5  # seconds between looks while Redis is away
CLAIM_EVERY = 1.0


class ReadAgain:
    """Told by the actor to itself."""


class StreamWorkerActor(LoopActor):
    """Reads new entries, and claims those that an instance took and never finished.

    It takes no more than it can handle: the next read comes after the last batch is done. While
    Redis is away it waits and tries again; nothing is lost, as what it had taken is claimed later.
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

    @abstractmethod
    async def handle(self, entries: Sequence[Entry]) -> None:
        """Handles and finishes a batch. May get an entry again that it has finished before."""

    def on_start(self) -> None:
        self.actor_ref.tell(ReadAgain())

    async def on_receive(self, _: ReadAgain) -> None:
        try:
            await self._work()
        except OrchestratorError as error:
            self._note_away(error)
            await asyncio.sleep(RETRY_AFTER)
        else:
            self._note_back()
        if self.actor_ref.is_alive():
            self.actor_ref.tell(ReadAgain())

    async def on_stop(self) -> None:
        await self._stream.close()

    async def on_failure(self, *_: object) -> None:
        await self._stream.close()

    async def _work(self) -> None:
        if time.monotonic() - self._claimed_at >= CLAIM_EVERY:
            self._claimed_at = time.monotonic()
            claimed = await self._stream.claim(self._claim_idle, self._batch)
            if claimed:
                log.info(f"{self.what}.claimed", count=len(claimed))
                await self.handle(claimed)
        if entries := await self._stream.read(self._batch, self._poll_seconds):
            await self.handle(entries)

    def _note_away(self, error: OrchestratorError) -> None:
        if not self._away:
            log.warning(f"{self.what}.interrupted", error=error.code)
        self._away = True

    def _note_back(self) -> None:
        if self._away:
            log.info(f"{self.what}.resumed")
        self._away = False
