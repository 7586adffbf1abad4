"""One attempt at one task: from `started` to its terminal callback, or until it is let go of.

running ── agent ends ──────────────► completed | failed ──► added ──► entry acked and deleted
   ├── cancelled, past its deadline ► cancelled ────────────►
   ├── superseded by a newer attempt ► nothing more is said
   └── given back (the worker stops) ► the entry becomes claimable at once
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import structlog

from common.domain.errors import TemporaryError
from common.failpoints import failpoint
from common.queues.work_consumer import WorkConsumer
from common.queues.work_entries import Lease
from execution.outputs import (
    Delta,
    Failed,
    InvalidOutput,
    Output,
    Result,
    callback_of,
    failed,
    pieces_of,
)
from execution.reporter import Outbox
from execution.task import Task

log = structlog.get_logger(__name__)

Agent = Callable[[Task], AsyncIterator[Output]]

STOP_GRACE = 5.0  # seconds an agent has to end once it is cancelled
LAST_FLUSH = 1.0  # seconds to save what was streamed before an entry is given back
# At the deadline the orchestrator ends the task as `timeout`; its word is waited for, so that the
# worker's `cancelled` does not overtake it.
DEADLINE_MARGIN = 1.5
FAIRNESS = 64  # outputs in a row before others get a turn
# The end of an answer repeats its text; not that of a longer one, which would be too large for a
# callback (characters).
REPEATED = 1 << 16
# A delta of more bytes, by what an agent put beside its text, may be above `callbacks.max_bytes`.
# Were the text not repeated, it would be missing from the answer, and nobody would be told.
SURELY_TAKEN = 1 << 15
RETRY_PAUSE = 0.5


class LetGo(StrEnum):
    """Why an attempt is not brought to an end here."""

    SUPERSEDED = "superseded"
    GIVEN_BACK = "given_back"


class Attempt:
    """Runs an agent for a task, keeps the lease meanwhile, and reports the end exactly once."""

    def __init__(self, consumer: WorkConsumer, lease: Lease, outbox: Outbox) -> None:
        loop = asyncio.get_running_loop()
        self.task_id = lease.entry.task_id
        self.task: Task | None = None
        self._consumer = consumer
        self._lease = lease
        self._outbox = outbox
        self._cancelled: asyncio.Future[str] = loop.create_future()
        self._let_go: asyncio.Future[LetGo] = loop.create_future()
        self._streamed: list[str] = []
        self._may_be_set_aside = False  # a piece of it, so that all has to be said at the end

    # What others may ask of it, at any time and repeatedly.

    def cancel(self, reason: str) -> None:
        """Someone wants the task stopped."""
        self._tell(reason)
        if not self._cancelled.done():
            self._cancelled.set_result(reason)

    def let_go(self, why: LetGo) -> None:
        """Stop without reporting an end."""
        self._tell(why)
        if not self._let_go.done():
            self._let_go.set_result(why)

    def _tell(self, reason: str) -> None:
        if self.task and self.task.cancel_reason is None:
            self.task.cancel_reason = reason

    # Its life.

    async def run(self, agent: Agent, task: Task, seconds_left: float) -> str:
        """Runs the agent to its end. Returns what became of the attempt, in a word."""
        self.task = task
        self._outbox.put("started", b"{}")
        async with self._leased(task.visibility_timeout_ms):
            end = await self._end_of(agent, task, seconds_left)
            return await self._settle(*end) if end else await self._leave()

    async def conclude(self, kind: str, data: bytes, visibility_timeout_ms: int) -> str:
        """Reports an end without running anything. Returns what became of the attempt."""
        async with self._leased(visibility_timeout_ms):
            return await self._settle(kind, data)

    async def _end_of(
        self, agent: Agent, task: Task, seconds_left: float
    ) -> tuple[str, bytes] | None:
        """The terminal callback; None if the attempt was let go of."""
        started = time.monotonic()
        pump = asyncio.create_task(self._pump(agent, task))
        pump.add_done_callback(_retrieve)
        try:
            await self._first_of(pump, self._cancelled, self._let_go, timeout=seconds_left)
            ended_by_itself = pump.done() and not (pump.cancelled() and task.cancelled)
            past_deadline = not (ended_by_itself or task.cancelled)
            if past_deadline:
                task.cancel_reason = "deadline"
        finally:
            await self._stop(pump)
        if self._let_go.done():
            return None
        if ended_by_itself:
            return self._outcome(pump, task, time.monotonic() - started)
        if past_deadline:
            await self._first_of(self._cancelled, self._let_go, timeout=DEADLINE_MARGIN)
        return None if self._let_go.done() else ("cancelled", b"{}")

    async def _pump(self, agent: Agent, task: Task) -> Result:
        """From the agent into the outbox, until a Result or the end."""
        outputs = agent(task)
        if not hasattr(outputs, "__aiter__"):
            raise InvalidOutput(f"agent {task.agent_id} is no async generator: it must yield")
        count = 0
        try:
            async for output in outputs:
                if isinstance(output, Result):
                    return output
                if task.cancelled:
                    # Said after the cancellation: the agent swallowed it, or has not felt it yet.
                    raise asyncio.CancelledError
                if isinstance(output, str) and not output:
                    continue  # nothing to tell; models begin and end with such
                for piece in pieces_of(output):
                    await self._outbox.add(*self._told(piece))
                    count += 1
                    if count % FAIRNESS == 0:
                        await asyncio.sleep(0)
        except (SystemExit, KeyboardInterrupt) as error:
            raise Failed(f"the agent called for an exit: {error}", type="SystemExit") from error
        finally:
            if hasattr(outputs, "aclose"):
                await outputs.aclose()
        return Result()

    def _told(self, output: Output) -> tuple[str, bytes]:
        kind, data = callback_of(output)
        if isinstance(output, str | Delta):
            self._streamed.append(output if isinstance(output, str) else output.text)
            self._may_be_set_aside |= len(data) > SURELY_TAKEN
        return kind, data

    def _outcome(
        self, pump: "asyncio.Task[Result]", task: Task, seconds: float
    ) -> tuple[str, bytes]:
        try:
            text = "".join(self._streamed)
            is_repeated = self._may_be_set_aside or len(text) <= REPEATED
            result = pump.result()
            data = result.completed(seconds, task.agent_id, text if is_repeated else None)
        except Failed as error:
            log.warning("agent.failed", **self._facts(), error_type=error.type, error=str(error))
            return "failed", failed(error)
        except (Exception, asyncio.CancelledError) as error:
            log.warning("agent.failed", **self._facts(), exc_info=error)
            return "failed", failed(error)
        return "completed", data

    async def _stop(self, pump: "asyncio.Task[Result]") -> None:
        """Cancels the agent; what it does in its `finally` is waited for, within bounds."""
        if pump.done():
            return
        pump.cancel()
        await asyncio.wait({pump}, timeout=STOP_GRACE)
        if not pump.done():
            _abandoned.add(pump)
            pump.add_done_callback(_abandoned.discard)
            log.error("agent.ignored_cancellation", **self._facts())

    # Its end.

    async def _settle(self, kind: str, data: bytes) -> str:
        """Reports the end, then removes the entry; each as often as it takes."""
        self._outbox.put(kind, data)
        if not await self._unless_let_go(self._outbox.flushed()):
            return await self._leave()
        failpoint("execution.before_ack")
        finished = await self._unless_let_go(self._finish())
        return kind if finished else await self._leave()

    async def _finish(self) -> None:
        while True:
            try:
                if not await self._consumer.finish(self._lease):
                    self.let_go(LetGo.SUPERSEDED)
                return
            except TemporaryError:
                await asyncio.sleep(RETRY_PAUSE)

    async def _leave(self) -> str:
        why = self._let_go.result()
        if why is LetGo.GIVEN_BACK:
            try:
                await asyncio.wait_for(self._outbox.flushed(), LAST_FLUSH)
                await self._consumer.give_back(self._lease.entry, self._lease.attempt)
            except (TemporaryError, TimeoutError):
                log.warning("entry.kept_pending", **self._facts())
        self._outbox.discard()
        self._consumer.let_go(self._lease.entry)
        return why

    async def _unless_let_go(self, doing: Coroutine[Any, Any, None]) -> bool:
        task = asyncio.create_task(doing)
        try:
            await self._first_of(task, self._let_go)
            return task.done() and not self._let_go.done()
        finally:
            task.cancel()

    @asynccontextmanager
    async def _leased(self, visibility_timeout_ms: int) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._keep_lease(visibility_timeout_ms / 3000))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})

    async def _keep_lease(self, every: float) -> None:
        pause = every
        while True:
            await asyncio.sleep(pause)
            try:
                if not await self._consumer.refresh(self._lease):
                    self.let_go(LetGo.SUPERSEDED)
                    return
                pause = every
            except TemporaryError:
                pause = min(every, RETRY_PAUSE)

    async def _first_of(
        self,
        *awaited: Awaitable[Any],
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        futures = {asyncio.ensure_future(each) for each in awaited}
        await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _facts(self) -> dict[str, Any]:
        agent_id = self.task.agent_id if self.task else None
        return {"task_id": self.task_id, "attempt": self._lease.attempt, "agent_id": agent_id}


# Agents that did not stop when cancelled: kept, since the loop itself keeps no task alive.
_abandoned: set["asyncio.Task[Result]"] = set()


def _retrieve(pump: "asyncio.Task[Result]") -> None:
    """What an agent raised after it was stopped is looked at by nobody; asyncio insists on it."""
    if not pump.cancelled():
        pump.exception()
