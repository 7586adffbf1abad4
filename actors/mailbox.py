"""What waits for an actor, and what became of messages that found nobody.

A mailbox is bounded: a sender that is too fast is told so (`MailboxFull`) instead of filling the
memory. A message to an actor that is gone is a dead letter: counted, and logged with restraint.
"""

import asyncio
import time
from collections import Counter, deque
from typing import Any

import structlog
from pykka import ActorDeadError, Timeout

from common.domain.errors import Overloaded

log = structlog.get_logger(__name__)


class MailboxFull(Overloaded):
    """The actor has as many messages waiting as it takes."""


class Envelope:
    """A message and, if it was asked, the future its answer goes to."""

    __slots__ = ("message", "reply_to", "timer")

    def __init__(self, message: Any, reply_to: asyncio.Future[Any] | None = None) -> None:
        self.message = message
        self.reply_to = reply_to
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, reply: Any) -> None:
        """Give the asker its reply; one that has gone (timeout, cancellation) is not missed."""
        if self.reply_to is None:
            return
        self._settled()
        if not self.reply_to.done():
            self.reply_to.set_result(reply)

    def refuse(self, error: BaseException) -> None:
        """Raise this at the asker; nobody complains if it never looks."""
        if self.reply_to is None:
            return
        self._settled()
        if not self.reply_to.done():
            self.reply_to.set_exception(_presentable(error))
            self.reply_to.exception()  # marks it as seen: an asker may be gone by now

    def expire(self, who: str) -> None:
        """The asker has waited long enough; the message itself stays where it is."""
        self.refuse(Timeout(f"{who} has not answered in time"))

    def _settled(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _presentable(error: BaseException) -> Exception:
    """An asker must not take the actor's cancellation, or an interrupt, for its own."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    shown = ActorDeadError(f"the actor was interrupted by {type(error).__name__}")
    shown.__cause__ = error
    return shown


class Mailbox:
    """Envelopes in the order of their arrival, at most `limit` of them; pykka's inbox words."""

    __slots__ = ("_waiting", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: deque[Envelope] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, envelope: Envelope, /) -> None:
        """Add behind the others. Raises: MailboxFull."""
        if len(self._waiting) >= self.limit:
            raise MailboxFull
        self._waiting.append(envelope)

    def put_control(self, envelope: Envelope, /) -> None:
        """Add behind the others, however many there are."""
        self._waiting.append(envelope)

    def get(self) -> Envelope:
        """Take the oldest; there must be one."""
        return self._waiting.popleft()

    def take(self, most: int) -> list[Envelope]:
        """Take the oldest, up to so many."""
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(most, len(waiting)))]

    def empty(self) -> bool:
        return not self._waiting


class DeadLetters:
    """Counts messages told to nobody: `total` and `by_class` are for the metrics.

    Logs at most one line a second and actor class, with the count since the last one.
    """

    interval = 1.0

    def __init__(self) -> None:
        self.total = 0
        self.by_class: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}

    def count(self, actor_class: type, message: Any, number: int = 1) -> None:
        """`number` messages, of which `message` is one, did not reach an actor of that class."""
        name, kind = actor_class.__name__, type(message).__name__
        self.total += number
        self.by_class[name] += number
        self._unlogged[name] += number
        quiet = self._quiet_until.get(name, 0.0) - time.monotonic()
        if quiet <= 0:
            self._tell(name, kind)
        elif self._unlogged[name] == number:  # the first that has to wait calls for those behind it
            asyncio.get_running_loop().call_later(quiet, self._tell, name, kind)

    def _tell(self, name: str, message_type: str) -> None:
        count = self._unlogged.pop(name, 0)
        if count:
            self._quiet_until[name] = time.monotonic() + self.interval
            log.warning(
                "dead_letters.counted", actor_class=name, count=count, message_type=message_type
            )


dead_letters = DeadLetters()
"""The process's own count."""
