"""Callbacks on their way to Redis: what is yielded in one turn of the loop goes in one pipeline.

Each attempt has an `Outbox`, which numbers its callbacks and is bounded: an agent that is faster
than Redis waits. What could not be added is added again, same `seq`, in order; the orchestrator
drops what it has seen. One attempt whose callbacks are refused delays no other.
"""

import asyncio
from collections import deque
from itertools import islice

import structlog

from common.domain.errors import TemporaryError
from common.queues.work_consumer import WorkConsumer
from common.queues.work_entries import Report
from execution.task import Address

log = structlog.get_logger(__name__)

MAX_WAITING = 1000  # callbacks of one attempt that Redis has not confirmed
MAX_WAITING_BYTES = 1 << 20
BATCH = 1000  # callbacks in one pipeline
BATCH_BYTES = 1 << 20
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries


class Outbox:
    """One attempt's callbacks, `seq` 1, 2, 3 …, until Redis has confirmed them."""

    def __init__(self, reporter: "Reporter", address: Address) -> None:
        self.address = address
        self._reporter = reporter
        self._waiting: deque[Report] = deque()
        self._bytes = 0
        self._seq = 0
        self._has_room = asyncio.Event()
        self._empty = asyncio.Event()
        self._has_room.set()
        self._empty.set()
        self.blocked = False

    async def add(self, kind: str, data: bytes) -> None:
        """Takes a callback, and returns when there is room for another."""
        self.put(kind, data)
        await self._has_room.wait()

    def put(self, kind: str, data: bytes) -> None:
        """Takes a callback, whether or not there is room: for the first and the last."""
        self._seq += 1
        address = self.address
        report = Report(
            address.stream,
            address.task_id,
            address.tenant_id,
            address.session_id,
            address.attempt,
            self._seq,
            kind,
            data,
        )
        self._waiting.append(report)
        self._bytes += len(data)
        self._note_change()
        self._reporter.wake(self)

    async def flushed(self) -> None:
        """Returns once Redis has confirmed all that was put."""
        await self._empty.wait()

    def discard(self) -> None:
        """Forgets what is waiting: nobody may report for this attempt any more."""
        self._waiting.clear()
        self._bytes = 0
        self.blocked = False
        self._note_change()

    def next(self, count: int) -> list[Report]:
        """The oldest callbacks; they stay until `confirm`. Bounded in bytes too, but never none."""
        taken: list[Report] = []
        size = 0
        for report in islice(self._waiting, count):
            size += len(report.data)
            if taken and size > BATCH_BYTES:
                break
            taken.append(report)
        return taken

    def confirm(self, reports: list[Report]) -> None:
        """These are in Redis. If they were discarded meanwhile, nothing changes."""
        for report in reports:
            if self._waiting and self._waiting[0] is report:
                self._waiting.popleft()
                self._bytes -= len(report.data)
        self.blocked = False
        self._note_change()

    def hold(self) -> None:
        """Redis did not take them: the agent waits until it does."""
        self.blocked = bool(self._waiting)
        self._note_change()

    def __len__(self) -> int:
        return len(self._waiting)

    def _note_change(self) -> None:
        full = len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES
        _set(self._has_room, not full and not self.blocked)
        _set(self._empty, not self._waiting)


class Reporter:
    """Empties the outboxes of all attempts of one worker."""

    def __init__(self, consumer: WorkConsumer) -> None:
        self._consumer = consumer
        self._full: dict[Outbox, None] = {}  # those with something to send, longest waiting first
        self._wake = asyncio.Event()

    def open(self, address: Address) -> Outbox:
        return Outbox(self, address)

    def wake(self, outbox: Outbox) -> None:
        """There is something in the outbox; it goes out when the loop comes round."""
        if not outbox.blocked:
            self._full[outbox] = None
            self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled. Survives any absence of Redis."""
        pause = FIRST_PAUSE
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._full:
                if await self._send(self._collect()):
                    pause = FIRST_PAUSE
                else:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)

    def _collect(self) -> dict[Outbox, list[Report]]:
        """The next pipeline: a fair share from each, the rest waits for the one after."""
        share = max(1, BATCH // len(self._full))
        collected: dict[Outbox, list[Report]] = {}
        size = 0
        for outbox in list(self._full):
            del self._full[outbox]
            if reports := outbox.next(share):
                collected[outbox] = reports
                size += sum(len(report.data) for report in reports)
            if size >= BATCH_BYTES:
                break
        return collected

    async def _send(self, batch: dict[Outbox, list[Report]]) -> bool:
        """False if Redis could not be reached; everything is then as it was before."""
        try:
            results = await self._consumer.report(
                [each for part in batch.values() for each in part]
            )
        except TemporaryError:
            for outbox in batch:
                outbox.hold()
                self._full[outbox] = None
            return False
        at = 0
        for outbox, reports in batch.items():
            self._settle(outbox, reports, results[at : at + len(reports)])
            at += len(reports)
        return True

    def _settle(self, outbox: Outbox, reports: list[Report], results: list[str | None]) -> None:
        """Confirms what was added before the first refusal; the rest is sent again, in order."""
        refused = next((i for i, error in enumerate(results) if error is not None), None)
        known = outbox.blocked
        outbox.confirm(reports[:refused])
        if refused is None:
            if len(outbox):
                self.wake(outbox)
            return
        outbox.hold()
        if not known:
            task_id = outbox.address.task_id
            log.warning("callback.refused", task_id=task_id, error=results[refused])
        asyncio.get_running_loop().call_later(LONGEST_PAUSE, self._again, outbox)

    def _again(self, outbox: Outbox) -> None:
        if len(outbox):
            self._full[outbox] = None
            self._wake.set()


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
