"""What clients and executors write down, and the marks by which payloads are known again.

Every payload that an executor sends carries one mark: whose it is, which attempt sent it, as which
of that attempt's visible payloads (1, 2, 3 …). What arrives can so be compared with what
was sent without asking the orchestrator, even where several deltas were joined into one frame.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

SHORT = "short"  # the response of attempts that do not answer with all they streamed

_MARK = re.compile(r"⟦([^|⟧]*)\|([^|⟧]*)\|([^|⟧]*)\|(\d+)\|(\d+)⟧")


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose payload this is, and the how manieth of which attempt."""

    tenant: str
    session: str
    task: str
    attempt: int
    number: int

    def __str__(self) -> str:
        who = f"{self.tenant}|{self.session}|{self.task}"
        return f"⟦{who}|{self.attempt}|{self.number}⟧"


class Marker:
    """Makes the marks of one attempt, in order."""

    def __init__(self, tenant: str, session: str, task: str, attempt: int) -> None:
        self._who = (tenant, session, task, attempt)
        self._number = 0

    def __call__(self) -> str:
        self._number += 1
        return str(Mark(*self._who, self._number))


def marks_in(text: str) -> list[Mark]:
    """All marks of a text, in order."""
    return [
        Mark(tenant, session, task, int(attempt), int(number))
        for tenant, session, task, attempt, number in _MARK.findall(text)
    ]


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


class Journal:
    """An append-only file of JSON lines.

    A line is with the kernel when `write` returns: SIGKILL of the writer loses none, and tears none
    but the last, which `read_journal` leaves out.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, **facts: Any) -> None:
        self.write_line(orjson.dumps({"t": unix_ms(), **facts}))

    def write_line(self, line: bytes) -> None:
        """A line that is JSON already."""
        os.write(self._file, line + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal, but for one that was torn by its writer's end."""
    with path.open("rb") as file:
        for line in file:
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
