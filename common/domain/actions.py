"""Domain Actions: what components and services ask of each other (contract, section 2).

Frozen values. They are validated where they enter (`orchestrator/schemas.py`); past that edge
nothing is checked twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from common.domain.ids import AgentId, SessionId, SessionKey, TaskId, TenantId, UserId, new_id
from common.domain.times import now_ms

JsonObject = Mapping[str, Any]


class Priority(StrEnum):
    """Which work stream a task enters; workers take high before normal before low."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class IfBusy(StrEnum):
    """What happens to a message whose session already has a task that is not terminal."""

    ENQUEUE = "enqueue"
    PARALLEL = "parallel"
    REJECT = "reject"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainAction:
    """What all actions have in common. `created_at` is in unix ms; on the wire it is RFC 3339."""

    action_type: ClassVar[str]
    tenant_id: TenantId
    user_id: UserId | None = None
    action_id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now_ms)
    metadata: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSendMessageAction(DomainAction):
    """A message for an agent. Answered with `Submitted`; `action_id` becomes the task id."""

    action_type: ClassVar[str] = "chat.send_message"
    agent_id: AgentId
    session_id: SessionId
    message: str
    message_type: str = "text"
    user_info: JsonObject = field(default_factory=dict)
    context: JsonObject = field(default_factory=dict)
    timeout: float  # seconds, from the task's entry into a work stream
    priority: Priority = Priority.NORMAL
    if_busy: IfBusy = IfBusy.ENQUEUE
    traceparent: str | None = None  # W3C Trace Context of the request, passed on to the worker
    # Not on the wire: how a repetition of this message is recognised.
    idempotency_key: str | None = None
    fingerprint: str = ""

    @property
    def task_id(self) -> TaskId:
        return TaskId(self.action_id)

    @property
    def session(self) -> SessionKey:
        return SessionKey(self.tenant_id, self.session_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatGetStatusAction(DomainAction):
    """Someone asks how a task is doing. Answered with a `Task`."""

    action_type: ClassVar[str] = "chat.get_status"
    task_id: TaskId
    # Not on the wire: the sessions that the caller may touch; None for all of the tenant.
    within: frozenset[SessionId] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCancelTaskAction(DomainAction):
    """Someone wants a task stopped. Answered with the task's status after the attempt."""

    action_type: ClassVar[str] = "chat.cancel_task"
    task_id: TaskId
    reason: str = ""
    within: frozenset[SessionId] | None = None  # as above


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSendAction(DomainAction):
    """A back-end pushes an event into one session's log."""

    action_type: ClassVar[str] = "websocket.send_message"
    session_id: SessionId
    message_data: JsonObject
    message_type: str = "agent_response"

    @property
    def session(self) -> SessionKey:
        return SessionKey(self.tenant_id, self.session_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketBroadcastAction(DomainAction):
    """A back-end tells all connected sessions of a tenant, or those named. Not kept in any log."""

    action_type: ClassVar[str] = "websocket.broadcast"
    message_data: JsonObject
    message_type: str = "broadcast"
    target_sessions: tuple[SessionId, ...] | None = None


ChatAction = ChatSendMessageAction | ChatGetStatusAction | ChatCancelTaskAction
PushAction = WebSocketSendAction | WebSocketBroadcastAction
