"""A task's life (contract, section 1): its statuses, and which may follow which.

    queued -> running -> completed | failed | cancelled | timeout
      ^          |  \
      +----------+   -> cancelling -> cancelled, or any other end that arrives first

A task reaches exactly one terminal status, once, and never leaves it; the first to arrive wins.
"""

from dataclasses import dataclass
from enum import StrEnum

from common.domain.ids import AgentId, SessionKey, TaskId


class TaskStatus(StrEnum):
    """`queued` means that no callback of the newest attempt has been handled."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.TIMEOUT}
)

NEXT: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: TERMINAL | {TaskStatus.RUNNING},
    TaskStatus.RUNNING: TERMINAL | {TaskStatus.QUEUED, TaskStatus.CANCELLING},
    TaskStatus.CANCELLING: TERMINAL,
    **{status: frozenset[TaskStatus]() for status in TERMINAL},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is known of a task. Times in unix ms; `result`, `error`, `usage` are JSON as bytes."""

    task_id: TaskId
    session: SessionKey
    agent_id: AgentId
    status: TaskStatus
    progress: float | None
    attempt: int | None
    created_at: int
    updated_at: int
    started_at: int | None
    finished_at: int | None
    result: bytes | None
    error: bytes | None
    usage: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A message was taken. `response` is the body of the 202, equal in every replay.

    A new task whose turn has not come waits for its session's earlier ones, some of which it may
    interrupt.
    """

    task_id: TaskId
    response: bytes
    replayed: bool
    interrupts: tuple[TaskId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOutcome:
    """What a cancellation came to: `cancelled` at once, or `cancelling` while a worker stops."""

    task_id: TaskId
    status: TaskStatus
