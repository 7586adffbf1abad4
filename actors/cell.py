"""What is behind a ref: an actor's life across its restarts.

    starting → running → stopped
                  ↓ on_failure
              suspended → a supervisor restarts it: on_start → running …
                        → or gives it up: failed

The mailbox outlives the instances, and so does the ref. Everything happens on the loop's thread.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pykka import ActorDeadError

from actors import supervision_log
from actors.lifecycle import Parent, State, StoppedFlag
from actors.mailbox import Envelope, dead_letters
from actors.supervision_log import SupervisionLog
from actors.turns import Turns

if TYPE_CHECKING:
    from actors.loop_actor import LoopActor, LoopRef

FAILURE_HOOK_SECONDS = 10.0
"""How long `on_failure` may take: a restart waits for it."""


class Cell(Turns):
    """One actor: started, restarted, stopped."""

    __slots__ = (
        "__weakref__",
        "_dropped",
        "_overtime",
        "_restart_delay",
        "_started_at",
        "_stop_waiter",
        "_suspended",
        "accepts",
        "actor",
        "args",
        "kwargs",
        "log",
        "parent",
        "permanent",
        "restarts",
        "state",
        "stopped",
        "urn",
    )

    def __init__(
        self,
        actor_class: "type[LoopActor]",
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        permanent: bool = False,
    ) -> None:
        """A permanent one is restarted by its parent, and its starts and stops are recorded."""
        super().__init__(actor_class, name)
        self.urn = uuid.uuid4().urn
        self.args, self.kwargs = args, kwargs
        self.permanent = permanent
        self.parent: Parent | None = None
        self.log: SupervisionLog = supervision_log.unsupervised
        self.actor: LoopActor | None = None
        self.state = State.STARTING
        self.restarts = 0
        self.accepts = True
        self.stopped = StoppedFlag()
        self._started_at = self.loop.time()
        self._restart_delay = 0.0
        self._suspended = False
        self._stop_waiter: asyncio.Future[bool] | None = None
        self._overtime: asyncio.TimerHandle | None = None
        self._dropped = 0

    # --- messages in

    def deliver(self, envelope: Envelope) -> None:
        """Put it behind those that wait. Raises: ActorDeadError, MailboxFull."""
        if self.accepts:
            self._put(envelope)
            return
        if envelope.reply_to is None:
            dead_letters.count(self.actor_class, envelope.message)
            if self.is_inside():
                return  # one that keeps itself going by telling itself ends so, when stopped
        raise ActorDeadError(f"{self.name} takes no messages: it is stopping, stopped or failed")

    def deliver_control(self, message: Any) -> bool:
        """Tell it something that gets in even when the mailbox is full; False if it is gone."""
        if self.accepts:
            self.mailbox.put_control(Envelope(message))
            if self._idle:
                self._wake()
        return self.accepts

    # --- starting

    def launch(self) -> "LoopRef":
        """Make the first instance and have it started. Raises what its constructor raises."""
        ref = self.actor_class.ref_class(self)
        self._incarnate(ref)
        return ref

    def restart(self, delay: float) -> None:
        """Put a new instance in the place of the failed one; nothing if it was stopped meanwhile.

        `delay` is what the parent has waited, in seconds, for the log.
        """
        if not self._suspended or self.actor is None:
            return
        self._suspended = False
        self.restarts += 1
        self._restart_delay = delay
        try:
            self._incarnate(self.actor.actor_ref)
        except Exception as error:  # noqa: BLE001  # a constructor may raise anything
            self._fail(error, phase="__init__")

    def bury(self) -> None:
        """Give up the one that failed."""
        if self._suspended:
            self._suspended = False
            self._end(State.FAILED)

    def begin(self) -> None:
        """Start the new instance in the next turn of the loop."""
        self._started_at = self.loop.time()
        self._soon(self._start)

    def _incarnate(self, ref: "LoopRef") -> None:
        actor = self.actor_class.__new__(self.actor_class)
        # set before __init__, so that a constructor may already hand out its ref and its name
        actor._actor_ref, actor.actor_urn = ref, self.urn
        actor.actor_inbox, actor.actor_stopped = ref.actor_inbox, self.stopped
        actor.__init__(*self.args, **self.kwargs)  # type: ignore[misc]
        self.actor = actor
        on_batch = getattr(actor, "on_batch", None)
        self._batched = on_batch is not None
        self._handle = on_batch or actor.on_receive
        actor._start_actor_loop()

    @property
    def _instance(self) -> "LoopActor":
        return cast("LoopActor", self.actor)  # there is one until the end

    def _start(self) -> None:
        self._run(self._instance.on_start, self._on_started)

    def _on_started(self, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error, phase="on_start")
            return
        self.state = State.RUNNING
        if self.permanent:
            self._record_start()
        self._turn()

    # --- failing

    def _fail(
        self, error: BaseException, envelopes: Sequence[Envelope] = (), *, phase: str
    ) -> None:
        for envelope in envelopes:
            envelope.refuse(error)
        again = self.permanent and self.parent is not None and not self._stopping
        self.state = State.RESTARTING if again else State.FAILED
        self.accepts = again
        self._record_failure(error, phase, envelopes, "restart" if again else "ended")
        then = partial(self._on_failure_handled, error)
        if phase == "__init__":
            then(None, None)  # there is no instance that could clean up
            return
        hook = partial(self._instance.on_failure, type(error), error, error.__traceback__)
        self._run(hook, then, FAILURE_HOOK_SECONDS)

    def contain(self, error: Exception, messages: Sequence[Any]) -> None:
        """Record a failure of these messages alone; the actor goes on."""
        phase = "on_batch" if self._batched else "on_receive"
        self._record_failure(error, phase, [Envelope(each) for each in messages], "contained")
        if self.parent is not None:
            self.parent.child_failed(self, error)

    def _on_failure_handled(
        self, error: BaseException, _: Any, hook_error: BaseException | None
    ) -> None:
        if hook_error is not None:
            self._record_failure(hook_error, "on_failure", (), "ignored")
        if self.state is State.FAILED:
            self._end(State.FAILED)
        elif self._stopping:
            self._end(State.STOPPED)
        else:
            self._suspended = True
        if self.parent is not None:
            self.parent.child_failed(self, error)

    # --- stopping

    def stop(self, timeout: float | None, *, drop: bool) -> asyncio.Future[bool]:
        """See `LoopRef.stop`."""
        if self.actor is None:
            dead: asyncio.Future[bool] = self.loop.create_future()
            dead.set_result(False)
            return dead
        if self._stop_waiter is None:
            self._stop_waiter = self.loop.create_future()
        waiter = asyncio.shield(self._stop_waiter)  # one who no longer waits stops nobody's waiting
        self._stopping, self.accepts = True, False
        if drop:
            self._drop()
        self._set_overtime(timeout)
        if self._suspended:
            self._suspended = False
            self._end(State.STOPPED)
        elif self._idle:
            self._wake()
        return waiter

    def _set_overtime(self, timeout: float | None) -> None:
        """The first deadline counts: who stops it again does not give it more time."""
        if timeout is None:
            return
        if self._overtime is not None:
            if self._overtime.when() <= self.loop.time() + timeout:
                return
            self._overtime.cancel()
        self._overtime = self.loop.call_later(timeout, self._on_overtime, timeout)

    def _on_overtime(self, timeout: float) -> None:
        self._overdue, self._overtime = True, None
        self._drop()
        if self._task is not None:
            self._task.cancel()
        self._set_overtime(timeout)  # for on_stop, and for a handler that shrugs off its end

    def _finish(self) -> None:
        self._run(self._instance.on_stop, self._on_stopped)

    def _on_stopped(self, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._record_failure(error, "on_stop", (), "ignored")
        self._end(State.STOPPED)

    def _end(self, state: State) -> None:
        self._drop()
        if self._overtime is not None:
            self._overtime.cancel()
        self.state, self.accepts = state, False
        self.stopped.set()
        if self.permanent and state is State.STOPPED:
            self.log.stopped(
                self.name,
                self.actor_class.__name__,
                uptime_ms=self._uptime_ms(),
                dropped=self._dropped,
            )
        # cuts the circle of cell, instance and ref: thousands come and go without the collector
        self.actor, self.args, self.kwargs = None, (), {}
        del self._handle
        if self._stop_waiter is not None:
            self._stop_waiter.set_result(True)
        if self.parent is not None:
            self.parent.child_ended(self)

    def _drop(self) -> None:
        """Refuse all that waits."""
        told = []
        for envelope in self.mailbox.take(len(self.mailbox)):
            if envelope.reply_to is None:
                told.append(envelope.message)
            envelope.refuse(ActorDeadError(f"{self.name} stopped before it came to the message"))
            self._dropped += 1
        if told:
            dead_letters.count(self.actor_class, told[0], len(told))

    # --- the record

    def _uptime_ms(self) -> int:
        return round((self.loop.time() - self._started_at) * 1000)

    def _record_start(self) -> None:
        if self.restarts == 0:
            self.log.started(self.name, self.actor_class.__name__)
            return
        self.log.restarted(
            self.name,
            self.actor_class.__name__,
            delay_ms=round(self._restart_delay * 1000),
            restarts=self.restarts,
            mailbox=len(self.mailbox),
        )

    def _record_failure(
        self, error: BaseException, phase: str, envelopes: Sequence[Envelope], outcome: str
    ) -> None:
        self.log.failed(
            self.name,
            self.actor_class.__name__,
            error,
            phase=phase,
            messages=[envelope.message for envelope in envelopes],
            mailbox=len(self.mailbox),
            uptime_ms=self._uptime_ms(),
            restarts=self.restarts,
            outcome=outcome,
        )
