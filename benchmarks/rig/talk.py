"""A session that talks: posts messages until each is answered, and cancels some of them."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from benchmarks.rig import http
from benchmarks.rig.clients import Log, Tab, another, close_all
from benchmarks.rig.records import unix_ms

NO_ANSWER = (OSError, EOFError, TimeoutError, ValueError)
GIVE_UP = 40.0  # seconds for the end of a task; then the next message is sent all the same


class Session:
    """A user with one or two tabs. `rate`: messages per second, if all goes well."""

    def __init__(
        self,
        tenant: str,
        name: str,
        folder: Path,
        ports: Sequence[int],
        dice: random.Random,
        *,
        rate: float,
        busy: Sequence[str],
    ) -> None:
        self.log = Log(tenant, name, folder)
        tabs = 2 if dice.random() < 0.3 else 1
        self.tabs = [
            Tab(self.log, number, ports, dice, compact=dice.random() < 0.3)
            for number in range(tabs)
        ]
        for tab in self.tabs:
            tab.answered = self._answered
        self.accepted: set[str] = set()
        self.answers = 0
        self.longest_wait = 0  # ms until a message was accepted
        self._ports = ports
        self._dice = dice
        self._rate = rate
        self._busy = busy
        self._failed_port: int | None = None
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._listening: list[asyncio.Task[None]] = []
        self._posting: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        self._listening = [asyncio.create_task(tab.run()) for tab in self.tabs]

    async def close(self) -> None:
        await close_all(self._listening)
        self.log.close()

    async def talk(self, until: asyncio.Event) -> None:
        """Posts, thinks, posts again. Returns when `until` is set and every post is answered."""
        await _set_within(until, self._dice.uniform(0, 1 / self._rate))
        while not until.is_set():
            post = asyncio.create_task(self._one())
            self._posting.add(post)
            post.add_done_callback(self._posting.discard)
            if self._dice.random() < 0.8:  # else the next comes while this one still runs
                await asyncio.wait({post}, timeout=GIVE_UP)
            await _set_within(until, self._dice.expovariate(self._rate))
        if self._posting:
            await asyncio.wait(self._posting)

    def open_tasks(self) -> list[str]:
        """Those accepted of which no tab has seen the end."""
        return [task for task in self.accepted if not self.log.end_of(task).is_set()]

    # One message.

    async def _one(self) -> None:
        key = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        body = self._body(key)
        first = unix_ms()
        if self._dice.random() < 0.05:  # two at once, on whichever instances
            task, _ = await asyncio.gather(self._accepted(key, body), self._accepted(key, body))
        else:
            task = await self._accepted(key, body)
        self.longest_wait = max(self.longest_wait, unix_ms() - first)
        if task is None:
            return
        if self._dice.random() < 0.08:
            await asyncio.sleep(self._dice.uniform(0, 0.8))
            await self._cancel(task)
        await _set_within(self.log.end_of(task), GIVE_UP)

    def _body(self, key: str) -> dict[str, Any]:
        dice = self._dice
        behave = dice.choices(("", "fail", "retry", "hang"), (88, 5, 4, 3))[0]
        return {
            "agent_id": "bench",
            "message": f"{self.log.tenant}|{self.log.name}|{key}",
            "context": {"behave": behave},
            "timeout": 4 if behave == "hang" else 40,
            "priority": dice.choice(("high", "normal", "normal", "low")),
            "if_busy": dice.choice(list(self._busy)),
        }

    async def _accepted(self, key: str, body: dict[str, Any]) -> str | None:
        """Tries until there is an answer; the task's id if it is 202."""
        pause = 0.1
        while True:
            began = unix_ms()
            status, answer = await self._try(key, body)
            self.log.write(key=key, status=status, took=unix_ms() - began, answer=answer)
            if status == 202:
                self.answers += 1
                self.accepted.add(answer["task_id"])
                return str(answer["task_id"])
            if status not in (0, 429, 503):
                return None
            await asyncio.sleep(pause * self._dice.uniform(0.5, 1.0))
            pause = min(2.0, pause * 2)

    async def _try(self, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status (0: no answer) and what was answered."""
        tab = self._dice.choice(self.tabs)
        if tab.is_live and tab.socket is not None and self._dice.random() < 0.25:
            return await self._try_by_socket(tab, key, body)
        named = {"tenant_id": self.log.tenant, "session_id": self.log.name, **body}
        headers = {"Idempotency-Key": key}
        return await self._ask("/api/chat/send", named, headers)

    async def _try_by_socket(self, tab: Tab, key: str, body: dict[str, Any]) -> tuple[int, Any]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            await tab.send({"type": "chat.send_message", "id": key, "data": body})
            frame = await asyncio.wait_for(answer, 6.0)
        except (ConnectionClosed, TimeoutError) as error:
            return 0, type(error).__name__
        finally:
            self._waiting.pop(key, None)
        if frame["type"] == "ack":
            return 202, frame["data"]
        code = frame["data"]["code"]
        is_passing = code in ("redis_unavailable", "overloaded", "draining")
        return 503 if is_passing else 409 if code == "session_busy" else 422, frame["data"]

    def _answered(self, id_: str, frame: dict[str, Any]) -> None:
        answer = self._waiting.get(id_)
        if answer is not None and not answer.done():
            answer.set_result(frame)

    async def _cancel(self, task: str) -> None:
        body = {"tenant_id": self.log.tenant, "task_id": task, "reason": "no longer wanted"}
        for _ in range(20):
            status, answer = await self._ask("/api/chat/cancel", body, {})
            self.log.write(cancel=task, status=status, answer=answer)
            if status not in (0, 503):
                return
            await asyncio.sleep(self._dice.uniform(0.1, 0.5))

    async def _ask(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        port = another(self._ports, self._failed_port, self._dice)
        try:
            answer = await http.post(port, path, body, headers=headers)
            self._failed_port = port if answer.status == 503 else None
            return answer.status, answer.json()
        except NO_ANSWER as error:
            self._failed_port = port
            return 0, type(error).__name__


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Returns when it is set, or the time is up."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
