"""What an agent is given: one attempt at one task, read from a work entry (contract, section 5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from common.domain.ids import TaskId
from common.queues.work_entries import DEFAULT_VISIBILITY_MS, WorkEntry
from execution.outputs import Failed

DEFAULT_MAX_ATTEMPTS = 3
ROLES = ("user", "assistant", "system")

T = TypeVar("T")


class InvalidAction(Exception):
    """A work entry does not say what is to be done, or not where to report it."""


class Turn(NamedTuple):
    """One thing that was said in a session: `role` is `user` or `assistant`."""

    role: str
    content: str


class History(Protocol):
    """Knows what was said in a session before a task."""

    async def turns(self, task: "Task", limit: int) -> list[Turn]: ...


class Address(NamedTuple):
    """Where an attempt's callbacks go, and what names the attempt in them."""

    stream: str
    task_id: TaskId
    tenant_id: str
    session_id: str
    attempt: int


@dataclass(kw_only=True)
class Task:
    """One attempt at one user message. `deadline` in unix ms, by Redis's clock."""

    task_id: TaskId
    tenant_id: str
    session_id: str
    agent_id: str
    message: str
    attempt: int
    max_attempts: int
    deadline: int
    visibility_timeout_ms: int
    user_id: str | None = None
    message_type: str = "text"
    user_info: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    traceparent: str | None = None
    cancel_reason: str | None = None
    told_by: History | None = field(default=None, repr=False)

    @property
    def cancelled(self) -> bool:
        """True once the task is to be stopped; for code that cannot be interrupted: threads."""
        return self.cancel_reason is not None

    async def history(self, limit: int = 20) -> list[Turn]:
        """The session's last turns before this message, oldest first; at most `limit`.

        They come from the action's `context.history`, else from the orchestrator if the worker
        knows its URL, else there are none.

        Raises:
            Failed: if the context's history is not one.
            Retryable: if the orchestrator could not be asked; never an empty history instead.
        """
        given = given_turns(self.context)
        if given is not None:
            return given[-limit:]
        return await self.told_by.turns(self, limit) if self.told_by else []


def read_action(entry: WorkEntry) -> dict[str, Any]:
    """The entry's action. Raises InvalidAction if it is no JSON object."""
    try:
        action = orjson.loads(entry.action)
    except orjson.JSONDecodeError as error:
        raise InvalidAction(f"the action is no JSON: {error}") from error
    if not isinstance(action, dict):
        raise InvalidAction("the action is no JSON object")
    return action


def read_address(entry: WorkEntry, action: Mapping[str, Any], attempt: int) -> Address:
    """Where to report. Raises InvalidAction if that cannot be known."""
    return Address(
        _get(action, "callback_stream", str),
        entry.task_id,
        _get(action, "tenant_id", str),
        _get(action, "session_id", str),
        attempt,
    )


def read_task(address: Address, action: Mapping[str, Any], told_by: History | None) -> Task:
    """What to do. Raises InvalidAction if that cannot be known."""
    return Task(
        task_id=address.task_id,
        tenant_id=address.tenant_id,
        session_id=address.session_id,
        agent_id=_get(action, "agent_id", str),
        message=_get(action, "message", str),
        attempt=address.attempt,
        max_attempts=_get(action, "max_attempts", int, DEFAULT_MAX_ATTEMPTS),
        deadline=_get(action, "deadline", int),
        visibility_timeout_ms=max(
            1, _get(action, "visibility_timeout_ms", int, DEFAULT_VISIBILITY_MS)
        ),
        user_id=_get(action, "user_id", str, "") or None,
        message_type=_get(action, "message_type", str, "text"),
        user_info=_get(action, "user_info", dict, {}),
        context=_get(action, "context", dict, {}),
        metadata=_get(action, "metadata", dict, {}),
        traceparent=_get(action, "traceparent", str, "") or None,
        told_by=told_by,
    )


def given_turns(context: Mapping[str, Any]) -> list[Turn] | None:
    """The turns that came with the message, in `history` or `messages`; None if none did.

    Raises Failed if they are not a list of objects with `role` and `content`.
    """
    given = context.get("history", context.get("messages"))
    if given is None:
        return None
    try:
        turns = [Turn(each["role"], each["content"]) for each in given]
    except (TypeError, KeyError) as error:
        raise _invalid() from error
    if any(each.role not in ROLES or not isinstance(each.content, str) for each in turns):
        raise _invalid()
    return turns


def _invalid() -> Failed:
    return Failed(
        "context.history must be a list of {role, content}, role user, assistant or system",
        type="invalid_history",
    )


def _get(action: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    value = action.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InvalidAction(f"the action's {name} is missing or no {kind.__name__}")
    return value
