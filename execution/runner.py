"""Takes tasks from the work streams and runs as many at once as it may (contract, section 5)."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog

from common.domain.errors import TemporaryError
from common.failpoints import failpoint
from common.queues.keys import Keys
from common.queues.work_consumer import WorkConsumer
from common.queues.work_entries import (
    DEFAULT_VISIBILITY_MS,
    Begun,
    GroupMissing,
    Lease,
    WorkEntry,
)
from execution.attempt import Agent, Attempt, LetGo
from execution.history import OrchestratorHistory
from execution.outputs import Failed, failed
from execution.reporter import Reporter
from execution.settings import WorkerSettings, redacted
from execution.task import Address, InvalidAction, read_action, read_address, read_task

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0  # between two looks at the cancel keys of what runs; the contract allows 5
LAST_SECONDS = 3.0  # for giving back what does not finish
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

T = TypeVar("T")


class Runner:
    """One start of one worker: its consumer, its attempts, and how it stops."""

    def __init__(self, agents: Mapping[str, Agent], settings: WorkerSettings) -> None:
        self._agents = agents
        self._settings = settings
        self._name = f"{settings.name}-{secrets.token_hex(4)}"
        self._consumer = WorkConsumer(
            settings.redis_url,
            Keys(settings.key_prefix),
            self._name,
            socket_timeout=settings.socket_timeout,
        )
        self._reporter = Reporter(self._consumer)
        self._attempts: set[Attempt] = set()
        self._handling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._subscribed = asyncio.Event()
        self._history: OrchestratorHistory | None = None

    async def run(self, stopping: asyncio.Event, hurrying: asyncio.Event) -> None:
        """Until `stopping` is set and all is finished or given back; sooner if `hurrying` is."""
        url, token = self._settings.orchestrator_url, self._settings.orchestrator_token
        self._history = OrchestratorHistory(url, token=token) if url else None
        log.info(
            "worker.started",
            name=self._name,
            agents=sorted(self._agents),
            redis=redacted(self._settings.redis_url),
            key_prefix=self._settings.key_prefix,
            concurrency=self._settings.concurrency,
        )
        try:
            await self._consumer.greet()
            async with asyncio.TaskGroup() as group:
                lasting = [
                    group.create_task(each)
                    for each in (self._reporter.run(), self._listen(), self._look())
                ]
                waker = group.create_task(self._wake_when(stopping))
                await self._take(stopping)
                waker.cancel()
                await self._drain(hurrying)
                for task in lasting:
                    task.cancel()
        finally:
            await self._leave()

    # Taking.

    async def _take(self, stopping: asyncio.Event) -> None:
        pause, complained = FIRST_PAUSE, False
        while await self._free(stopping):
            try:
                free = self._settings.concurrency - len(self._handling)
                for entry in await self._consumer.take(free):
                    failpoint("execution.after_take")
                    self._start(entry)
                pause, complained = FIRST_PAUSE, False
            except GroupMissing:
                if not complained:
                    log.warning("group.missed", waiting_for="an orchestrator to make it")
                complained = True
                await _either(stopping, within=1.0)
            except TemporaryError:
                await _either(stopping, within=pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _free(self, stopping: asyncio.Event) -> bool:
        """Waits until there is room for a task and cancellations are heard. False: stop."""
        while not stopping.is_set():
            self._changed.clear()
            if not self._subscribed.is_set():
                await _either(stopping, self._subscribed)
            elif len(self._handling) >= self._settings.concurrency:
                await _either(stopping, self._changed)
            else:
                return True
        return False

    async def _wake_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        await self._consumer.stop_waiting()

    def _start(self, entry: WorkEntry) -> None:
        task = asyncio.create_task(self._handle(entry))
        self._handling.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._handling.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception():
            log.error("worker.failed", exc_info=task.exception())

    # One entry.

    async def _handle(self, entry: WorkEntry) -> None:
        if not entry.task_id:
            log.error("entry.unreadable", entry_id=entry.entry_id, fields=list(entry.fields))
            await _until_it_works(lambda: self._consumer.discard(entry))
            return
        try:
            await self._attempt(entry)
        finally:
            # Finished, given back, or left: then whoever claims it when it is idle tries it again.
            self._consumer.let_go(entry)

    async def _attempt(self, entry: WorkEntry) -> None:
        taking = secrets.token_hex(8)
        begun = await _until_it_works(lambda: self._consumer.begin(entry.task_id, taking))
        facts = {"task_id": entry.task_id, "attempt": begun.attempt}
        try:
            action = read_action(entry)
            address = read_address(entry, action, begun.attempt)
        except InvalidAction as error:
            # Nobody can be told. It is taken again each time its visibility timeout is over, until
            # the orchestrator finds its attempts used up.
            log.error("entry.unreadable", **facts, error=str(error))
            return
        attempt = Attempt(self._consumer, Lease(entry, begun.attempt), self._reporter.open(address))
        self._attempts.add(attempt)
        try:
            ended = await self._bring_to_an_end(attempt, address, action, begun)
            log.info("attempt.ended", **facts, ended=ended)
        finally:
            self._attempts.discard(attempt)

    async def _bring_to_an_end(
        self, attempt: Attempt, address: Address, action: Mapping[str, Any], begun: Begun
    ) -> str:
        try:
            task = read_task(address, action, self._history)
        except InvalidAction as error:
            told = failed(Failed(str(error), type="invalid_action"))
            return await attempt.conclude("failed", told, DEFAULT_VISIBILITY_MS)
        if begun.attempt > task.max_attempts:
            return "left"  # the orchestrator ends it
        seconds_left = (task.deadline - begun.now_ms) / 1000
        if begun.cancel is not None or seconds_left <= 0:
            return await attempt.conclude("cancelled", b"{}", task.visibility_timeout_ms)
        agent = self._agents.get(task.agent_id)
        if agent is None:
            told = failed(Failed(f"no agent is named {task.agent_id!r}", type="agent_not_found"))
            return await attempt.conclude("failed", told, task.visibility_timeout_ms)
        return await attempt.run(agent, task, seconds_left)

    # Hearing of cancellations.

    async def _listen(self) -> None:
        """By the control channel: at once, while Redis is there."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._consumer.cancellations.told() as cancellations:
                    self._subscribed.set()
                    pause = FIRST_PAUSE
                    async for task_id, reason in cancellations:
                        self._cancel(task_id, reason)
            except TemporaryError:
                self._subscribed.clear()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _look(self) -> None:
        """By the cancel keys: whatever the channel did not say."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            task_ids = list({attempt.task_id for attempt in self._attempts})
            if not task_ids:
                continue
            try:
                found = await self._consumer.cancellations.kept(task_ids)
                for task_id, reason in found.items():
                    self._cancel(task_id, reason)
            except TemporaryError:
                continue

    def _cancel(self, task_id: str, reason: str) -> None:
        for attempt in self._attempts:
            if attempt.task_id == task_id:
                attempt.cancel(reason)

    # Stopping.

    async def _drain(self, hurrying: asyncio.Event) -> None:
        seconds = self._settings.drain_seconds
        log.info("worker.draining", running=len(self._handling), drain_seconds=seconds)
        await self._emptied(hurrying, within=seconds)
        for attempt in list(self._attempts):
            attempt.let_go(LetGo.GIVEN_BACK)
        await self._emptied(within=LAST_SECONDS)
        rest = set(self._handling)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=LAST_SECONDS)

    async def _emptied(self, *or_else: asyncio.Event, within: float) -> None:
        """Returns once nothing runs, or an event is set, or the time is up."""
        if not self._handling:
            return
        empty = asyncio.create_task(asyncio.wait(set(self._handling)))
        others = [asyncio.create_task(event.wait()) for event in or_else]
        await asyncio.wait({empty, *others}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for task in (empty, *others):
            task.cancel()

    async def _leave(self) -> None:
        try:
            await self._consumer.retire()
        except TemporaryError:
            log.warning("consumer.left_behind", name=self._name)
        if self._history:
            await self._history.close()
        await self._consumer.close()
        log.info("worker.stopped", name=self._name)


async def _until_it_works(do: Callable[[], Awaitable[T]]) -> T:
    """Tries again until Redis has answered."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await do()
        except TemporaryError:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def _either(*events: asyncio.Event, within: float | None = None) -> None:
    """Returns when one of the events is set, or the time is up."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
