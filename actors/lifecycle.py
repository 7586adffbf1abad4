"""The words in which an actor's life is told."""

import threading
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    from actors.cell import Cell


class State(StrEnum):
    """As the supervision tree shows it."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"


class Parent(Protocol):
    """What a cell tells the supervisor above it."""

    def child_failed(self, cell: "Cell", error: BaseException) -> None:
        """A permanent one is suspended now: `restart` or `bury` it. Any other has ended.

        One that still runs has contained it, and only says so.
        """

    def child_ended(self, cell: "Cell") -> None:
        """It has stopped, or failed for good."""


class StoppedFlag(threading.Event):
    """pykka's flag without its lock: there is but one thread, and nobody may block on it."""

    def __init__(self) -> None:
        self._flag = False

    def set(self) -> None:
        self._flag = True

    def wait(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002
        raise RuntimeError("waiting for an actor would block the event loop: await its stop()")
