"""Whose turn it is: messages from a mailbox to the handler of an actor, one after the other.

At any moment exactly one thing has the actor in hand, and each hands it on to the next:

    a scheduled turn → the turn → (the task of an async handler → the turn) → idle → a turn …

So nothing is handled twice or at once, no two turns are ever scheduled, and an idle actor holds no
task, no timer and no handle. Everything happens on the loop's thread.
"""

import asyncio
from abc import ABC, abstractmethod
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from pykka import ActorDeadError

from actors.mailbox import Envelope, Mailbox
from common.domain.errors import OrchestratorError

if TYPE_CHECKING:
    from actors.loop_actor import LoopActor

INTERRUPTS = (KeyboardInterrupt, SystemExit)
"""They are the loop's: they end the process, not the actor."""

Then = Callable[[Any, BaseException | None], None]
"""Goes on with a result, or with what was raised instead."""


class Turns(ABC):
    """Runs handlers and hooks, sync or async; what happens after is its subclass's business."""

    __slots__ = (
        "_batched",
        "_executing",
        "_handle",
        "_idle",
        "_overdue",
        "_stopping",
        "_task",
        "actor_class",
        "loop",
        "mailbox",
        "name",
    )

    _handle: Callable[[Any], Any]

    def __init__(self, actor_class: "type[LoopActor]", name: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.actor_class = actor_class
        self.name = name
        self.mailbox: Mailbox = actor_class._create_actor_inbox()
        self._batched = False
        self._idle = self._executing = self._stopping = self._overdue = False
        self._task: asyncio.Future[Any] | None = None

    def is_inside(self) -> bool:
        """Whether the code that asks is this actor's own handler."""
        if self._executing:
            return True
        return self._task is not None and asyncio.current_task() is self._task

    @abstractmethod
    def _fail(
        self, error: BaseException, envelopes: Sequence[Envelope] = (), *, phase: str
    ) -> None:
        """The actor failed in `phase` (a method's name) with these messages in hand."""

    @abstractmethod
    def _finish(self) -> None:
        """The actor is to stop, and all that waited has been handled."""

    # --- scheduling

    def _put(self, envelope: Envelope) -> None:
        self.mailbox.put(envelope)
        if self._idle:
            self._wake()

    def _wake(self) -> None:
        self._idle = False
        self._soon(self._turn)

    def _soon(self, callback: Callable[[], None]) -> None:
        # In a context of its own: what a sender has bound to its context (a request's id) must not
        # stick to the messages of others that the same turn handles.
        self.loop.call_soon(callback, context=Context())

    def _rest(self) -> None:
        """The turn is over: another one, the end, or nothing to do."""
        if not self.mailbox.empty():
            self._soon(self._turn)
        elif self._stopping:
            self._finish()
        else:
            self._idle = True

    # --- messages

    def _turn(self) -> None:
        if self._batched:
            self._turn_batch()
        else:
            self._turn_messages()

    def _turn_messages(self) -> None:
        mailbox = self.mailbox
        self._executing = True
        try:
            for _ in range(self.actor_class.turn_budget):
                if mailbox.empty():
                    break
                if not self._handle_message(mailbox.get()):
                    return
        finally:
            self._executing = False
        self._rest()

    def _handle_message(self, envelope: Envelope) -> bool:
        """Whether the turn goes on: not if a task has the message now, or the actor failed."""
        try:
            reply = self._handle(envelope.message)
        except INTERRUPTS as error:
            self.loop.call_soon(self._excused, error, (envelope,))
            raise
        except BaseException as error:  # noqa: BLE001  # a handler may raise anything
            return self._excused(error, (envelope,))
        if reply is not None and hasattr(reply, "__await__"):
            self._await(reply, partial(self._on_reply, envelope))
            return False
        envelope.answer(reply)
        return True

    def _on_reply(self, envelope: Envelope, reply: Any, error: BaseException | None) -> None:
        if error is None:
            envelope.answer(reply)
        elif not self._excused(error, (envelope,)):
            return
        self._turn()

    def _excused(self, error: BaseException, envelopes: Sequence[Envelope]) -> bool:
        """Whether the actor goes on; if so, the askers have been answered with the error."""
        all_asked = all(envelope.reply_to is not None for envelope in envelopes)
        if self._overdue and isinstance(error, CancelledError):
            error = ActorDeadError(f"{self.name} was stopped before it was done")
        elif not (isinstance(error, OrchestratorError) and all_asked):
            self._fail(error, envelopes, phase="on_batch" if self._batched else "on_receive")
            return False
        for envelope in envelopes:
            envelope.refuse(error)
        return True

    # --- batches

    def _turn_batch(self) -> None:
        envelopes = self.mailbox.take(self.actor_class.batch_size)
        if not envelopes:
            self._rest()
            return
        messages = [envelope.message for envelope in envelopes]
        self._run(partial(self._handle, messages), partial(self._on_replies, envelopes))

    def _on_replies(
        self, envelopes: Sequence[Envelope], replies: Any, error: BaseException | None
    ) -> None:
        if error is None:
            error = _mismatch(replies, envelopes)
        if error is not None:
            if self._excused(error, envelopes):
                self._rest()
            return
        untold: list[tuple[Envelope, Exception]] = []
        for envelope, reply in zip(envelopes, replies or [None] * len(envelopes), strict=True):
            if not isinstance(reply, Exception):
                envelope.answer(reply)
            elif envelope.reply_to is not None:
                envelope.refuse(reply)
            else:
                untold.append((envelope, reply))
        if untold:  # nobody asked, so only the supervisor can hear of it
            self._fail(untold[0][1], [envelope for envelope, _ in untold], phase="on_batch")
        else:
            self._rest()

    # --- running things

    def _run(self, call: Callable[[], Any], then: Then, limit: float | None = None) -> None:
        """Call it, as a task if it needs one (for `limit` seconds at most), and go on."""
        result: Any = None
        failure: BaseException | None = None
        self._executing = True
        try:
            result = call()
        except INTERRUPTS as error:
            self.loop.call_soon(then, None, error)
            raise
        except BaseException as error:  # noqa: BLE001  # actors may raise anything
            failure = error
        finally:
            self._executing = False
        if result is not None and hasattr(result, "__await__"):
            self._await(result, then, limit)
        else:
            then(result, failure)

    def _await(self, awaitable: Awaitable[Any], then: Then, limit: float | None = None) -> None:
        if asyncio.iscoroutine(awaitable):
            self._task = task = self.loop.create_task(awaitable, name=self.name)
        else:
            self._task = task = asyncio.ensure_future(awaitable)
        timer = None if limit is None else self.loop.call_later(limit, task.cancel)
        task.add_done_callback(partial(self._on_task_done, then, timer), context=Context())

    def _on_task_done(
        self, then: Then, timer: asyncio.TimerHandle | None, task: asyncio.Future[Any]
    ) -> None:
        self._task = None
        if timer is not None:
            timer.cancel()
        result: Any = None
        failure: BaseException | None = None
        try:
            result = task.result()
        except BaseException as error:  # noqa: BLE001  # an interrupt has reached the loop already
            failure = error
        then(result, failure)


def _mismatch(replies: Any, envelopes: Sequence[Envelope]) -> BaseException | None:
    if replies is None or (isinstance(replies, Sequence) and len(replies) == len(envelopes)):
        return None
    return TypeError(f"on_batch must give {len(envelopes)} replies or None")
