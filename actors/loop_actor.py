"""Pykka's Actor on the event loop: same words, no threads.

`tell` schedules one turn of the loop; an actor that has nothing to do costs nothing but its memory.
Everything here is to be called on the loop's own thread, and only there.
"""

import asyncio
import threading
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

import pykka
import structlog
from pykka import ActorDeadError, Timeout

from actors.cell import Cell
from actors.lifecycle import State
from actors.mailbox import DeadLetters, Envelope, Mailbox, MailboxFull, dead_letters

__all__ = [
    "ActorDeadError",
    "DeadLetters",
    "LoopActor",
    "LoopRef",
    "MailboxFull",
    "State",
    "Timeout",
    "dead_letters",
]


log = structlog.get_logger(__name__)


class LoopRef(pykka.ActorRef[Any]):
    """The way to an actor. It stays valid when a supervisor restarts what is behind it.

    Messages of one sender are handled in the order sent, one at a time, each at most once. While an
    actor starts or restarts they wait. Only on the loop's thread.
    """

    def __init__(self, cell: Cell) -> None:
        # pykka's own __init__ wants one instance for good; ours may be replaced behind the ref.
        self._cell = cell
        self.actor_class = cell.actor_class
        self.actor_urn = cell.urn
        self.actor_inbox = cell.mailbox  # type: ignore[assignment]  # same words, our envelopes
        self.actor_stopped = cell.stopped

    def __str__(self) -> str:
        return f"{self.actor_class.__name__} ({self.name})"

    @property
    def name(self) -> str:
        """The actor's path in the supervision tree."""
        return self._cell.name

    @property
    def state(self) -> State:
        return self._cell.state

    @property
    def restarts(self) -> int:
        return self._cell.restarts

    @property
    def mailbox(self) -> int:
        """How many messages wait."""
        return len(self._cell.mailbox)

    def is_alive(self) -> bool:
        """Whether it takes messages: from `start` until it is told to stop, or failed for good."""
        return self._cell.accepts

    def tell(self, message: Any) -> None:
        """Send and forget.

        Raises: ActorDeadError (counted as a dead letter), MailboxFull. An actor that tells itself
        something while it is being stopped gets no error: the message is a dead letter.
        """
        self._cell.deliver(Envelope(message))

    def notify(self, message: Any) -> None:
        """Tell it what must not be lost, few as such messages are: a full mailbox takes it, too.

        Nothing happens if it takes no messages any more.
        """
        self._cell.deliver_control(message)

    def ask(  # type: ignore[override]  # pykka's would block the loop
        self, message: Any, *, timeout: float | None = 5.0
    ) -> asyncio.Future[Any]:
        """Send, and get a future of the reply: `reply = await ref.ask(message)`.

        Raises at once: ActorDeadError, MailboxFull, RuntimeError (an actor that asks itself).
        Raises when awaited: `pykka.Timeout` after `timeout` seconds (the message may still be
        handled), ActorDeadError if it stops before, or whatever the actor raised.
        """
        cell = self._cell
        if cell.is_inside():
            raise RuntimeError(f"{self} asked itself: it would wait for itself for ever")
        future: asyncio.Future[Any] = self.actor_class._create_future()
        envelope = Envelope(message, future)
        cell.deliver(envelope)
        if timeout is not None:
            envelope.timer = cell.loop.call_later(timeout, envelope.expire, cell.name)
        return future

    def stop(  # type: ignore[override]  # pykka's would block the loop
        self, *, timeout: float | None = 10.0, drop: bool = False
    ) -> asyncio.Future[bool]:
        """Stop it; awaited: False if it was dead already.

        From now on it takes no message. What waited is handled first, or with `drop` refused.
        A handler (or `on_stop`) that takes longer than `timeout` seconds is cancelled, and what
        still waits is refused: asks with ActorDeadError, tells as dead letters.
        """
        return self._cell.stop(timeout, drop=drop)

    def proxy(self) -> NoReturn:
        """Not here: a pykka proxy answers with blocking futures."""
        raise TypeError("a proxy would block the event loop: use tell and ask")


class Watching(Protocol):
    """A supervisor's ref, as far as `start` knows it."""

    def watch(self, ref: LoopRef) -> None: ...


if TYPE_CHECKING:

    class PykkaActor:
        """pykka.Actor as the type checker sees it, less its hooks: in there none may be async."""

        actor_urn: str
        actor_inbox: Any
        actor_stopped: threading.Event
else:
    PykkaActor = pykka.Actor


class LoopActor(PykkaActor):
    """An actor on the event loop. Subclass it, write `on_receive` (or `on_batch`), `start` it.

    `on_start`, `on_receive`, `on_stop` and `on_failure` may be sync or async. One message at a
    time; a sync handler runs without a task, and at most `turn_budget` messages in one turn of
    the loop. A class that defines `on_batch(messages) -> list of replies | None` gets all that
    waits, up to `batch_size`, at once: replies match by position, one that is an Exception is
    raised at that asker alone.

    An OrchestratorError raised at an ask is an answer. Any other exception is a failure: the asker
    gets it, `on_failure` runs, and the actor ends, unless a supervisor starts it anew: same class,
    same arguments, same ref, same waiting messages; only the one that failed is gone.
    """

    mailbox_size: ClassVar[int] = 1000
    batch_size: ClassVar[int] = 256
    turn_budget: ClassVar[int] = 64
    ref_class: ClassVar[type[LoopRef]] = LoopRef

    _actor_ref: LoopRef

    def __init__(self) -> None:
        if not hasattr(self, "_actor_ref"):
            raise TypeError(f"{type(self).__name__} is made by its start(), never directly")

    def __str__(self) -> str:
        return f"{type(self).__name__} ({self.name})"

    @classmethod
    def start(
        cls, *args: Any, name: str = "", supervisor: Watching | None = None, **kwargs: Any
    ) -> LoopRef:
        """Make an actor of these arguments; it starts within the next turn of the loop.

        `name` is its path in the supervision tree. `supervisor` hears of its failure, and does not
        restart it (for that, see `SupervisorActor`). It lives as long as someone holds its ref.
        """
        ref = Cell(cls, name or cls.__name__, args, kwargs).launch()
        if supervisor is not None:
            supervisor.watch(ref)
        return ref

    @property
    def actor_ref(self) -> LoopRef:
        return self._actor_ref

    @property
    def name(self) -> str:
        """The path in the supervision tree: `supervisor/chat_router`."""
        return self._actor_ref.name

    def stop(self) -> None:
        """Stop once all that waits now has been handled."""
        self._actor_ref.stop()

    def contain(self, error: Exception, *messages: Any) -> None:
        """Say in the supervision log that these failed, and go on: they concern nobody else."""
        self._actor_ref._cell.contain(error, messages)

    def describe_children(self) -> Collection[LoopRef]:
        """The actors that this one looks after, for the supervision tree."""
        return ()

    def on_start(self) -> Any:
        """Before the first message; messages wait for it. Raising is a failure."""

    def on_receive(self, message: Any) -> Any:
        """Handle a message; what is returned is the reply. This one only says that it came."""
        log.warning("message.unexpected", actor=self.name, message_type=type(message).__name__)

    def on_stop(self) -> Any:
        """After the last message. Raising is only logged."""

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Any:
        """After a failure, instead of `on_stop`; within ten seconds. Raising is only logged."""

    @classmethod
    def _create_actor_inbox(cls) -> Mailbox:
        return Mailbox(cls.mailbox_size)

    @staticmethod
    def _create_future() -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def _start_actor_loop(self) -> None:
        self._actor_ref._cell.begin()
