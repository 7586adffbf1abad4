"""Answers as JSON: the same for REST and for the `ack` and `error` frames of a WebSocket."""

import orjson

from common.domain.errors import OrchestratorError
from common.domain.tasks import CancelOutcome, Submitted, Task
from common.domain.times import rfc3339


def submitted_body(submitted: Submitted) -> bytes:
    return submitted.response


def cancel_body(outcome: CancelOutcome) -> bytes:
    return orjson.dumps({"task_id": outcome.task_id, "status": outcome.status})


def status_body(task: Task) -> bytes:
    """A task's status; what the agent reported is passed on as it came."""
    return orjson.dumps(
        {
            "task_id": task.task_id,
            "tenant_id": task.session.tenant_id,
            "session_id": task.session.session_id,
            "agent_id": task.agent_id,
            "status": task.status,
            "progress": _whole(task.progress),
            "attempt": task.attempt,
            "created_at": _time(task.created_at),
            "updated_at": _time(task.updated_at),
            "started_at": _time(task.started_at),
            "finished_at": _time(task.finished_at),
            "result": _json(task.result),
            "error": _json(task.error),
            "usage": _json(task.usage),
        }
    )


def answer_body(answer: Submitted | CancelOutcome | Task) -> bytes:
    match answer:
        case Submitted():
            return submitted_body(answer)
        case CancelOutcome():
            return cancel_body(answer)
        case Task():
            return status_body(answer)


def refusal_body(error: OrchestratorError) -> bytes:
    """The data of an `error` frame that refuses a client's frame (section 4)."""
    data: dict[str, object] = {"code": error.code, "message": error.detail}
    if error.errors:
        data["errors"] = error.errors
    return orjson.dumps(data)


def _time(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else rfc3339(unix_ms)


def _json(value: bytes | None) -> orjson.Fragment | None:
    return None if value is None else orjson.Fragment(value)


def _whole(number: float | None) -> float | int | None:
    return int(number) if number is not None and number.is_integer() else number
