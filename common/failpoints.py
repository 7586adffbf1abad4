"""Faults on request: named places in the code fail when a test says so.

    FAILPOINTS="session.on_receive=raise:1,callbacks.after_apply=exit,dedupe=off"

The variable is read when the process starts; without it a failpoint is one look at an empty dict.
What a place may be told to do, `:N` being how often (without it: always):

    raise[:N]      raise `Injected`
    base[:N]       raise `InjectedBase`, which no `except Exception` catches
    exit           end the process at once with status 9, as if it had been killed
    stop[:N]       stop the whole process (SIGSTOP) until it is told to go on
    sleep:SECONDS  block the thread, and with it the loop
    off            turn off what asks `is_off` about its name
"""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

VARIABLE = "FAILPOINTS"
ACTIONS = ("raise", "base", "exit", "stop", "sleep", "off")
EXIT_STATUS = 9


class Injected(Exception):
    """A failpoint was told to raise."""


class InjectedBase(BaseException):
    """A failpoint was told to raise what only few expect."""


@dataclass(slots=True)
class _Fault:
    """What one place was told to do."""

    action: str
    seconds: float = 0.0
    left: float = math.inf

    def happen(self, name: str) -> None:
        if self.left < 1:
            return
        self.left -= 1
        match self.action:
            case "raise":
                raise Injected(name)
            case "base":
                raise InjectedBase(name)
            case "exit":
                os._exit(EXIT_STATUS)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "sleep":
                time.sleep(self.seconds)


_faults: dict[str, _Fault] = {}


def failpoint(name: str) -> None:
    """A place where a test may have this process fail; see above."""
    if _faults and name in _faults:
        _faults[name].happen(name)


def is_off(name: str) -> bool:
    """Whether a test has turned this off, to see that it is noticed."""
    return name in _faults and _faults[name].action == "off"


@contextmanager
def armed(text: str) -> Iterator[None]:
    """For a test in the same process: these faults, beside those of the variable."""
    faults = _read(text)
    _faults.update(faults)
    try:
        yield
    finally:
        for name in faults:
            _faults.pop(name, None)


def _read(text: str) -> dict[str, _Fault]:
    """
    Raises:
        ValueError: if it is not written as above.
    """
    faults = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, is_, what = part.partition("=")
        action, _, argument = what.partition(":")
        if not (name and is_ and action in ACTIONS) or (action == "sleep" and not argument):
            raise ValueError(f"{VARIABLE}: {part!r} is not NAME=ACTION[:ARGUMENT]")
        number = float(argument) if argument else math.inf
        faults[name] = _Fault(action, number) if action == "sleep" else _Fault(action, left=number)
    return faults


_faults.update(_read(os.environ.get(VARIABLE, "")))
