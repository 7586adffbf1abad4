"""How a task is written down: for the worker, for the client, and in its own record."""

from collections.abc import Mapping

import orjson

from common.domain.actions import ChatSendMessageAction
from common.domain.ids import AgentId, SessionId, SessionKey, TaskId, TenantId
from common.domain.tasks import Task, TaskStatus
from common.domain.times import rfc3339


def action_for_worker(
    action: ChatSendMessageAction,
    *,
    callback_stream: str,
    max_attempts: int,
    visibility_timeout_ms: int,
) -> bytes:
    """The JSON for the work stream (section 5), up to where the deadline's value goes."""
    fields: dict[str, object] = {
        "action_id": action.action_id,
        "action_type": action.action_type,
        "tenant_id": action.tenant_id,
        "user_id": action.user_id,
        "created_at": rfc3339(action.created_at),
        "metadata": action.metadata,
        "agent_id": action.agent_id,
        "session_id": action.session_id,
        "message": action.message,
        "message_type": action.message_type,
        "user_info": action.user_info,
        "context": action.context,
        "timeout": action.timeout,
        "priority": action.priority,
        "if_busy": action.if_busy,
        "callback_stream": callback_stream,
        "max_attempts": max_attempts,
        "visibility_timeout_ms": visibility_timeout_ms,
    }
    if action.traceparent is not None:
        fields["traceparent"] = action.traceparent
    return orjson.dumps(fields)[:-1] + b',"deadline":'


def timeout_ms(action: ChatSendMessageAction) -> int:
    return round(action.timeout * 1000)


def response_to(action: ChatSendMessageAction) -> bytes:
    return orjson.dumps(
        {
            "task_id": action.task_id,
            "status": TaskStatus.QUEUED,
            "tenant_id": action.tenant_id,
            "session_id": action.session_id,
            "created_at": rfc3339(action.created_at),
        }
    )


def user_message_of(action: ChatSendMessageAction) -> bytes:
    return orjson.dumps(
        {
            "message": action.message,
            "message_type": action.message_type,
            "user_id": action.user_id,
            "agent_id": action.agent_id,
        }
    )


def session_named(name: bytes) -> SessionKey:
    tenant_id, session_id = name.decode().split(":")
    return SessionKey(TenantId(tenant_id), SessionId(session_id))


def task_of(
    task_id: TaskId, session: SessionKey, fields: Mapping[bytes, bytes], text: bytes | None
) -> Task:
    def number(name: bytes) -> int | None:
        return int(fields[name]) if fields.get(name) else None

    status = TaskStatus(fields[b"status"].decode())
    result = fields.get(b"result")
    if status.is_terminal and status is not TaskStatus.COMPLETED and text:
        result = orjson.dumps({"response": text.decode(), "partial": True})
    return Task(
        task_id=task_id,
        session=session,
        agent_id=AgentId(fields[b"agent_id"].decode()),
        status=status,
        progress=float(fields[b"progress"]) if b"progress" in fields else None,
        attempt=number(b"attempt") or None,
        created_at=int(fields[b"created"]),
        updated_at=int(fields[b"updated"]),
        started_at=number(b"started"),
        finished_at=number(b"finished"),
        result=result,
        error=fields.get(b"error"),
        usage=fields.get(b"usage"),
    )
