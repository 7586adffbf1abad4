"""Records as clients and executors of a bench would have made them, written by hand."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.rig.attempt import Callback
from benchmarks.rig.records import Journal, Mark

TENANT, SESSION, TASK = "t", "s", "task-1"


def mark(number: int, attempt: int = 1, *, tenant: str = TENANT, task: str = TASK) -> str:
    return str(Mark(tenant, SESSION, task, attempt, number))


def frame(offset: int, type_: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A frame of the session; of its one task, if nothing else is said."""
    made = {"type": type_, "data": data, "offset": offset, "timestamp": "", "task_id": TASK}
    return {**made, "tenant_id": TENANT, "session_id": SESSION, **more}


def delta(offset: int, number: int, attempt: int = 1) -> dict[str, Any]:
    return frame(offset, "agent_delta", {"text": mark(number, attempt)})


def good_story() -> list[dict[str, Any]]:
    """A message, three deltas, and the end: offsets 1 to 6."""
    said = "".join(mark(number) for number in (1, 2, 3))
    return [
        frame(1, "user_message", {"message": f"{TENANT}|{SESSION}|key-1"}),
        frame(2, "task_update", {"status": "running", "attempt": 1}),
        *(delta(number + 2, number) for number in (1, 2, 3)),
        frame(6, "agent_response", {"response": said, "agent_info": {"mark": mark(4)}}),
    ]


class ClientRecord:
    """Writes a client's journal."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / f"client-{TENANT}--{SESSION}.jsonl")

    def connects(self, asked: Any, tab: int = 0, connection: int = 1, **ack: Any) -> None:
        self.journal.write(tab=tab, connection=connection, asked=asked, port=1)
        data = {"epoch": "e", "offset": 0, "recovered": True, **ack}
        address = {"tenant_id": TENANT, "session_id": SESSION}
        self.sees([{"type": "connection_ack", "data": data, **address}], tab, connection)

    def sees(self, frames: Iterable[dict[str, Any]], tab: int = 0, connection: int = 1) -> None:
        for each in frames:
            self.journal.write(tab=tab, connection=connection, frame=each)

    def was_answered(self, status: int, task: str = TASK, key: str = "key-1") -> None:
        self.journal.write(key=key, status=status, took=5, answer={"task_id": task})


def executor_record(folder: Path, *callbacks: Callback, ran: Iterable[int] = (1,)) -> None:
    """Writes an executor's journal: these attempts ran, and these callbacks were sent."""
    journal = Journal(folder / "executor-1.jsonl")
    for attempt in ran:
        journal.write(task=TASK, attempt=attempt, by="executor")
    for each in callbacks:
        journal.write(**each.record())
    journal.close()
