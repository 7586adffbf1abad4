"""A session's earlier turns, asked of the orchestrator by REST."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import orjson

from execution.outputs import Retryable
from execution.task import Task, Turn

PAGE = 1000  # events; with compaction, a few for each turn


class OrchestratorHistory:
    """Asks `GET /api/sessions/{tenant}/{session}/events` (contract, section 3)."""

    def __init__(self, url: str, *, token: str | None = None, seconds: float = 10.0) -> None:
        """`seconds` bound the whole of one asking, however many pages it takes."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=seconds)
        self._seconds = seconds

    async def turns(self, task: Task, limit: int) -> list[Turn]:
        """What was said before the task's own message. Raises Retryable if that cannot be known."""
        try:
            async with asyncio.timeout(self._seconds):
                events = await self._events_before(task)
        except (httpx2.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            text = f"the session's history could not be read: {type(error).__name__}: {error}"
            raise Retryable(text, type="history_unavailable") from error
        return turns_of(events)[-limit:]

    async def _events_before(self, task: Task) -> list[Mapping[str, Any]]:
        path = f"/api/sessions/{task.tenant_id}/{task.session_id}/events"
        asked: dict[str, Any] = {"offset": 0, "limit": PAGE, "compact": 1}
        before: list[Mapping[str, Any]] = []
        while True:
            answer = await self._http.get(path, params=asked)
            answer.raise_for_status()
            page = orjson.loads(answer.content)
            for event in page["events"]:
                if event["type"] == "user_message" and event.get("task_id") == task.task_id:
                    return before
                if event["type"] in {"user_message", "agent_response"}:
                    before.append(event)
            if not page["events"]:
                raise ValueError("the message itself is not in the session's log")
            asked |= {"offset": page["next_offset"], "epoch": page["epoch"]}

    async def close(self) -> None:
        await self._http.aclose()


def turns_of(events: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Each user message, followed by its answer if there was one, whatever stood between them."""
    answers = {
        event["task_id"]: event["data"]["response"]
        for event in events
        if event["type"] == "agent_response" and event.get("task_id")
    }
    turns: list[Turn] = []
    for event in events:
        if event["type"] == "user_message":
            turns.append(Turn("user", event["data"]["message"]))
            if answer := answers.get(event["task_id"]):
                turns.append(Turn("assistant", answer))
    return turns
