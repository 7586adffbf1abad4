"""Recorded frames as events, joined ones taken apart again, so that all can be compared."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.rig.records import Mark, marks_in

ENDS = ("agent_response", "error")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a session's log, from whoever saw it."""

    offset: int
    type: str
    task: str | None
    data: Mapping[str, Any]

    @property
    def identity(self) -> bytes:
        """Equal for equal events, however they were joined or written."""
        said = orjson.dumps([self.type, self.task, self.data], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(said).digest()[:12]

    @property
    def status(self) -> str | None:
        """The status that this event ends its task with; None if it ends none."""
        if self.type == "agent_response":
            return "completed"
        if self.type == "error":
            return str(self.data.get("status"))
        if self.type == "task_update" and self.data.get("status") == "cancelled":
            return "cancelled"
        return None

    @property
    def resets(self) -> int | None:
        """The attempt that begins here, if an earlier one is to be forgotten."""
        if self.type == "task_update" and self.data.get("reset"):
            return int(self.data["attempt"])
        return None

    @property
    def mark(self) -> Mark | None:
        """The mark of the payload that became this event, if an executor sent it."""
        match self.type:
            case "agent_delta":
                where = self.data.get("text")
            case "agent_event":
                where = self.data.get("mark")
            case "task_update" | "error":
                where = self.data.get("message")
            case "agent_response":
                where = self.data.get("agent_info", {}).get("mark")
            case _:
                where = None
        marks = marks_in(where) if isinstance(where, str) else []
        return marks[0] if marks else None


def events_of(frame: Mapping[str, Any]) -> list[Event]:
    """The events of a frame with an offset.

    Raises:
        ValueError: if a joined frame does not hold as many deltas as it says.
    """
    last, first = frame["offset"], frame.get("from_offset", frame["offset"])
    type_, task, data = frame["type"], frame.get("task_id"), frame["data"]
    if first == last:
        return [Event(last, type_, task, data)]
    _, *pieces = data["text"].split("⟦")
    if len(pieces) != last - first + 1:
        raise ValueError(f"{len(pieces)} deltas in a frame from {first} to {last}")
    return [Event(first + i, type_, task, {"text": f"⟦{piece}"}) for i, piece in enumerate(pieces)]
