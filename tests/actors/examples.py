"""Small actors that the tests of the runtime share."""

import asyncio
from dataclasses import dataclass
from typing import Any

from actors.loop_actor import LoopActor
from common.domain.errors import TaskNotFound


@dataclass(frozen=True, slots=True)
class Job:
    """A message with identifiers, and a text that no log may show."""

    task_id: str = "t-1"
    tenant_id: str = "acme"
    text: str = "a secret"


class Echo(LoopActor):
    """Answers what it is sent."""

    def on_receive(self, message: Any) -> Any:
        return message


class Diary(LoopActor):
    """Writes down what it handles; does what a message says. The book outlives its instances."""

    def __init__(self, book: list[Any]) -> None:
        super().__init__()
        self.book = book

    def on_receive(self, message: Any) -> Any:
        self.book.append(message)
        match message:
            case "fail":
                raise ValueError("as told")
            case "refuse":
                raise TaskNotFound
            case "stop":
                self.stop()
            case "read":
                return list(self.book)
        return None


class SlowDiary(Diary):
    """The same, a turn of the loop later; waits at the gate when told to."""

    def __init__(self, book: list[Any], gate: asyncio.Event | None = None) -> None:
        super().__init__(book)
        self.gate = gate or asyncio.Event()

    async def on_receive(self, message: Any) -> Any:
        if message == "wait":
            self.book.append("waits")
            await self.gate.wait()
        await asyncio.sleep(0)
        return super().on_receive(message)


class Lived(LoopActor):
    """Writes down its own life, and waits wherever `gates` has an event for a hook."""

    def __init__(self, book: list[Any], gates: dict[str, asyncio.Event] | None = None) -> None:
        super().__init__()
        self.book, self.gates = book, gates or {}

    async def on_start(self) -> None:
        await self._pass("start")

    def on_receive(self, message: Any) -> Any:
        self.book.append(message)
        if isinstance(message, BaseException):
            raise message
        return len(self.book)

    async def on_stop(self) -> None:
        await self._pass("stop")

    async def on_failure(self, *_error: Any) -> None:
        await self._pass("failure")

    async def _pass(self, hook: str) -> None:
        self.book.append(hook)
        if hook in self.gates:
            await self.gates[hook].wait()
