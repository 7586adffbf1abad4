"""The rules of delivery as a model: what a session's log says, however its callbacks arrive.

Section 5 of the contract, in plain Python and without Redis. What runs is
`common/queues/lua/apply_callbacks.lua`, where one step is atomic; this page says the same where it
can be read and reasoned about, and `tests/properties` holds the two against each other, step by
step, on a real Redis.

Why it comes out right in every order:

  * A task knows one place, (attempt, seq): the next callback that it has not handled. Only what
    stands exactly there is handled, and handling moves the place on. So no callback is handled
    twice, and none before those in front of it, whatever is repeated or overtaken on the way.
  * What stands behind the place (duplicate, stale) is dropped: it has been handled, or its attempt
    is over. What stands before it waits for its turn, and is forgotten when a newer attempt begins,
    as that tells everything anew.
  * An attempt that asks to be tried again is over with that; the task waits for the next one.
  * A terminal status closes the task: whatever comes after is late. So the first end wins, whoever
    brings it: a worker, a deadline, the end of a grace period, a gap that lasted too long.
  * A callback that cannot be used still takes its turn, else all that follows would wait for it.
  * A callback of another session or an unknown task touches nothing.

Times are any numbers that grow. Messages that people read are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from common.domain.callbacks import TERMINAL_TYPES, Callback, CallbackType, DeadLetter
from common.domain.events import FrameType
from common.domain.ids import TaskId
from common.domain.tasks import TaskStatus

Read = Callback | DeadLetter


class Outcome(StrEnum):
    """What became of a callback."""

    APPLIED = "applied"
    PARKED = "parked"
    DUPLICATE = "duplicate"
    STALE = "stale"
    LATE = "late"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Told:
    """An event as the log keeps it, or (`typing_indicator`) as it passes by."""

    type: FrameType
    task_id: TaskId
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When waiting ends."""

    max_attempts: int
    max_parked: int
    gap_timeout: float
    cancel_grace: float


@dataclass(slots=True)
class Waiting:
    """A callback before its turn."""

    since: float
    read: Read


@dataclass(slots=True)
class TaskDelivery:
    """One task. `log` and `passing` are its session's, shared with the session's other tasks."""

    task_id: TaskId
    limits: Limits
    log: list[Told]
    passing: list[Told]
    status: TaskStatus = TaskStatus.QUEUED
    attempt: int = 0  # none has been heard of
    expected: int = 1  # the seq whose turn it is
    is_over: bool = False  # the newest attempt asked to be tried again
    waiting: dict[int, Waiting] = field(default_factory=dict)
    text: str = ""  # what the newest attempt has streamed
    progress: float | None = None
    response: str | None = None
    error_type: str | None = None
    reason: str = ""
    cancel_at: float | None = None
    deadline: float | None = None
    ended_here: bool = False  # by us: its workers have to be told to stop

    # Callbacks.

    def receive(self, read: Read, attempt: int, seq: int, now: float) -> Outcome:
        if self.status.is_terminal:
            return Outcome.LATE
        if attempt < self.attempt or (attempt == self.attempt and self.is_over):
            return Outcome.STALE
        if attempt > self.attempt:
            self._begin(attempt)
        if seq < self.expected or seq in self.waiting:
            return Outcome.DUPLICATE
        if seq > self.expected:
            self.waiting[seq] = Waiting(now, read)
            if len(self.waiting) > self.limits.max_parked:
                self._end_as_gap()
            return Outcome.PARKED
        self._handle(read, now)
        while self.expected in self.waiting:
            self._handle(self.waiting.pop(self.expected).read, now)
        return Outcome.APPLIED

    def _begin(self, attempt: int) -> None:
        """A newer attempt fences the older ones off; a first one has nothing to take back."""
        self.attempt, self.expected, self.is_over = attempt, 1, False
        if attempt > 1:
            self.waiting.clear()
            self.text, self.progress = "", None
            self._run_on()
            self._tell_status("running", attempt=attempt, reset=True)

    def _handle(self, read: Read, now: float) -> None:
        is_first = self.expected == 1
        self.expected += 1
        if isinstance(read, DeadLetter):
            if read.ends_task:
                self._end_with_error(TaskStatus.FAILED, read.reason)
            return
        self._run_on()
        if read.type in TERMINAL_TYPES:
            self._end_by(read, now)
        else:
            self._report(read, is_first)

    def _report(self, callback: Callback, is_first: bool) -> None:
        body = callback.body
        match callback.type:
            case CallbackType.STARTED:
                if not (is_first and self.attempt > 1):  # the reset has told that already
                    self._tell_status("running", attempt=self.attempt)
            case CallbackType.DELTA:
                self._tell(FrameType.AGENT_DELTA, body)
                self.text += body["text"]
            case CallbackType.EVENT:
                self._tell(FrameType.AGENT_EVENT, body)
            case CallbackType.PROGRESS:
                known = {name: body[name] for name in ("progress", "message") if name in body}
                self._tell_status("running", **known)
                self.progress = body["progress"]
            case _:
                self.passing.append(Told(FrameType.TYPING_INDICATOR, self.task_id, {}))

    def _end_by(self, callback: Callback, now: float) -> None:
        match callback.type:
            case CallbackType.COMPLETED:
                data = {"response": self.text, **callback.body}
                self.response = data["response"]
                self._end(TaskStatus.COMPLETED)
                self._tell(FrameType.AGENT_RESPONSE, data)
            case CallbackType.FAILED if callback.body.get("retryable") is True:
                self._try_again()
            case CallbackType.FAILED:
                said = callback.body["error"].get("type")
                self._end_with_error(TaskStatus.FAILED, said if said else "error")
            case _:
                if self.status is not TaskStatus.CANCELLING and self._is_past_deadline(now):
                    self._end_as_timeout()  # nobody asked for the cancellation: time ran out
                else:
                    self._end_as_cancelled()

    def _try_again(self) -> None:
        if self.status is TaskStatus.CANCELLING:
            self._end_as_cancelled()
        elif self.attempt >= self.limits.max_attempts:
            self.ended_here = True
            self._end_with_error(TaskStatus.FAILED, "max_attempts")
        else:
            self.status, self.is_over = TaskStatus.QUEUED, True
            self.waiting.clear()
            self._tell_status("queued", attempt=self.attempt)

    def _run_on(self) -> None:
        if self.status is TaskStatus.QUEUED:
            self.status = TaskStatus.RUNNING

    # What people and time do.

    def cancel(self, reason: str, now: float) -> None:
        """Ends a task that no worker has begun; gives one that runs a grace period to stop."""
        if self.status is TaskStatus.QUEUED:
            self.reason = reason
            self._end_as_cancelled()
        elif self.status is TaskStatus.RUNNING:
            self.reason = reason
            self.status, self.cancel_at = TaskStatus.CANCELLING, now + self.limits.cancel_grace
            self._tell_status("cancelling", **self._because())

    def look(self, now: float) -> None:
        """Ends the task if time demands it."""
        if self.status.is_terminal:
            return
        gap_since = min((each.since for each in self.waiting.values()), default=None)
        grace_is_over = self.cancel_at is not None and now >= self.cancel_at
        if self.status is TaskStatus.CANCELLING and (grace_is_over or self._is_past_deadline(now)):
            self._end_as_cancelled()
        elif self._is_past_deadline(now):
            self._end_as_timeout()
        elif gap_since is not None and now >= gap_since + self.limits.gap_timeout:
            self._end_as_gap()

    def _is_past_deadline(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    # Ends, and what is told.

    def _end(self, status: TaskStatus) -> None:
        self.status = status
        self.waiting.clear()

    def _end_as_cancelled(self) -> None:
        self._end(TaskStatus.CANCELLED)
        self._tell_status("cancelled", **self._because())

    def _end_as_timeout(self) -> None:
        self.ended_here = True
        self._end_with_error(TaskStatus.TIMEOUT, "timeout")

    def _end_as_gap(self) -> None:
        self.ended_here = True
        self._end_with_error(TaskStatus.FAILED, "callback_gap")

    def _end_with_error(self, status: TaskStatus, error_type: str) -> None:
        self._end(status)
        self.error_type = error_type
        code = "task_timeout" if status is TaskStatus.TIMEOUT else "task_failed"
        self._tell(FrameType.ERROR, {"code": code, "error_type": error_type, "status": status})

    @property
    def partial(self) -> str | None:
        """What a task that ended without `completed` keeps of its newest attempt."""
        ended = self.status.is_terminal and self.status is not TaskStatus.COMPLETED
        return self.text or None if ended else None

    def _because(self) -> dict[str, str]:
        return {"message": self.reason} if self.reason else {}

    def _tell_status(self, status: str, **more: object) -> None:
        self._tell(FrameType.TASK_UPDATE, {"status": status, **more})

    def _tell(self, type_: FrameType, data: Mapping[str, Any]) -> None:
        self.log.append(Told(type_, self.task_id, data))


class SessionDelivery:
    """A session: its log, what passed by, and its tasks."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.log: list[Told] = []
        self.passing: list[Told] = []
        self.tasks: dict[TaskId, TaskDelivery] = {}

    def submit(self, task_id: TaskId) -> TaskDelivery:
        """A message was taken."""
        self.log.append(Told(FrameType.USER_MESSAGE, task_id, {}))
        self.tasks[task_id] = TaskDelivery(task_id, self._limits, self.log, self.passing)
        return self.tasks[task_id]

    def receive(self, read: Read, now: float) -> Outcome | None:
        """Takes a callback that names this session; None if its place cannot be read."""
        position = read.position
        if position is None:
            return None
        task = self.tasks.get(position.task_id)
        if task is None:
            return Outcome.UNKNOWN
        return task.receive(read, position.attempt, position.seq, now)
