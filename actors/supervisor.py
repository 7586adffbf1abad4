"""Restarts what failed, says so in the supervision log, and knows when to give up.

See Erlang's supervisors: children start in order and stop in reverse; more than `max_restarts`
within `period` means that restarting does not help, and that someone above has to act.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast
from weakref import WeakSet

import structlog
from pykka import ActorDeadError

from actors.cell import Cell
from actors.lifecycle import State
from actors.loop_actor import LoopActor, LoopRef, Watching
from actors.restart_policy import RestartPolicy, Restarts
from actors.supervision_log import SupervisionLog
from actors.supervision_tree import GetTree, Node, node_of
from common.failpoints import failpoint

__all__ = [
    "ChildSpec",
    "GetTree",
    "Node",
    "RestartPolicy",
    "SupervisorActor",
    "SupervisorRef",
    "Totals",
]

log = structlog.get_logger(__name__)

OnEscalation = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child, and what each of its instances is made of. The name is unique, without a `/`."""

    name: str
    actor_class: type[LoopActor]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the supervisor, its children, and the actors it watches."""

    alive: int
    restarts: int
    failures: int
    failed: int
    """Children given up: more than none is unhealthy."""
    restarting: int


class Child:
    """A child, its restarts lately, and the one that is due."""

    __slots__ = ("ref", "restarts", "timer")

    def __init__(self, ref: LoopRef, policy: RestartPolicy) -> None:
        self.ref = ref
        self.restarts = Restarts(policy)
        self.timer: asyncio.TimerHandle | None = None

    @property
    def cell(self) -> Cell:
        return self.ref._cell


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """From a child's cell to the supervisor's mailbox."""

    child: Child
    error: BaseException


class SupervisorRef(LoopRef):
    """The way to a supervisor. What the composition root needs at once goes without a message."""

    _supervisor: "SupervisorActor"

    @property
    def log(self) -> SupervisionLog:
        return self._supervisor.log

    def spawn(self, spec: ChildSpec) -> LoopRef:
        """Make a child, and have it started; its ref is good for all its restarts.

        Children stop in the reverse of the order of their making.
        Raises: ValueError (a name twice), ActorDeadError, what the child's constructor raises.
        """
        return self._supervisor.spawn(spec)

    def watch(self, ref: LoopRef) -> None:
        """Hear of the failure of an actor that is nobody's child; it is not kept alive by this."""
        self._supervisor.watch(ref)

    def totals(self) -> Totals:
        return self._supervisor.totals()

    def stop(  # type: ignore[override]
        self, *, timeout: float | None = None, drop: bool = False
    ) -> asyncio.Future[bool]:
        """Stop the children, the newest first, each gracefully, and then the supervisor.

        Without a `timeout` of its own: each child has `child_stop_seconds`.
        """
        return super().stop(timeout=timeout, drop=drop)


class SupervisorActor(LoopActor):
    """Looks after long-lived actors; hears of the failures of temporary ones.

    Receives `GetTree`, answered with a `Node`, and the failures of its children. A child that fails
    is restarted with backoff, unless that happened too often lately: then it stays down, `failed`,
    and `on_escalation(reason)` is called. So it is when the supervisor itself fails. Actors that
    are only watched are never restarted.
    """

    ref_class: ClassVar[type[LoopRef]] = SupervisorRef
    child_stop_seconds: ClassVar[float] = 10.0

    def __init__(
        self,
        on_escalation: OnEscalation,
        *,
        policy: RestartPolicy | None = None,
        log: SupervisionLog | None = None,
    ) -> None:
        super().__init__()
        cast("SupervisorRef", self._actor_ref)._supervisor = self
        self.log = log or SupervisionLog()
        self._on_escalation = on_escalation
        self._policy = policy or RestartPolicy()
        self._children: dict[str, Child] = {}
        self._watched: WeakSet[Cell] = WeakSet()
        self._failures = 0

    @classmethod
    def start(
        cls,
        *args: Any,
        name: str = "supervisor",
        supervisor: Watching | None = None,
        **kwargs: Any,
    ) -> SupervisorRef:
        """`SupervisorActor.start(on_escalation, policy=..., log=...)`."""
        ref = cast("SupervisorRef", super().start(*args, name=name, **kwargs))
        if supervisor is None:
            ref._cell.permanent, ref._cell.log = True, ref.log
        else:
            supervisor.watch(ref)
        return ref

    # --- what its ref offers

    def spawn(self, spec: ChildSpec) -> LoopRef:
        """See `SupervisorRef.spawn`."""
        path = f"{self.name}/{spec.name}"
        if path in self._children:
            raise ValueError(f"{path} exists already")
        if not self.actor_ref.is_alive():
            raise ActorDeadError(f"{self.name} starts nobody any more")
        cell = Cell(spec.actor_class, path, spec.args, spec.kwargs, permanent=True)
        cell.parent, cell.log = self, self.log
        ref = cell.launch()
        self._children[path] = Child(ref, self._policy)
        return ref

    def watch(self, ref: LoopRef) -> None:
        """See `SupervisorRef.watch`."""
        if ref._cell.parent is not None:
            raise ValueError(f"{ref} has a supervisor already")
        ref._cell.parent, ref._cell.log = self, self.log
        if ref.is_alive():
            self._watched.add(ref._cell)

    def totals(self) -> Totals:
        """As of now, without a message."""
        states = Counter(child.ref.state for child in self._children.values())
        return Totals(
            alive=self.actor_ref.is_alive()
            + states[State.STARTING]
            + states[State.RUNNING]
            + len(self._watched),
            restarts=sum(child.ref.restarts for child in self._children.values()),
            failures=self._failures,
            failed=states[State.FAILED],
            restarting=states[State.RESTARTING],
        )

    def describe_children(self) -> Collection[LoopRef]:
        return [child.ref for child in self._children.values()]

    # --- what cells tell it

    def child_failed(self, cell: Cell, error: BaseException) -> None:
        """A failure is counted at once; whether to restart is decided in the supervisor's turn."""
        self._failures += 1
        if cell.state is State.RESTARTING:
            notice = ChildFailed(self._children[cell.name], error)
            if not self.actor_ref._cell.deliver_control(notice):
                cell.bury()

    def child_ended(self, cell: Cell) -> None:
        self._watched.discard(cell)

    # --- its turn

    def on_receive(self, message: Any) -> Any:
        failpoint("supervisor.on_receive")
        match message:
            case GetTree():
                return node_of(self.actor_ref)
            case ChildFailed(child, error):
                return self._restart_or_give_up(child, error)
            case _:
                return super().on_receive(message)

    def _restart_or_give_up(self, child: Child, error: BaseException) -> None:
        loop = asyncio.get_running_loop()
        delay = child.restarts.next_delay(loop.time())
        if delay is not None:
            child.timer = loop.call_later(delay, child.cell.restart, delay)
            return
        child.cell.bury()
        policy, kind = self._policy, type(error).__name__
        often = f"{policy.max_restarts + 1} times within {policy.period:g} s"
        self._escalate(child.ref, f"{child.ref.name} failed {often}, at last with {kind}")

    def _escalate(self, ref: LoopRef, reason: str) -> None:
        self.log.escalated(ref.name, ref.actor_class.__name__, reason=reason, restarts=ref.restarts)
        try:
            self._on_escalation(reason)
        except Exception:
            log.exception("escalation.failed", actor=ref.name)

    def on_failure(self, _type: Any, error: BaseException | None, _traceback: Any, /) -> None:
        self._escalate(self.actor_ref, f"{self.name} itself failed: {error!r}")

    async def on_stop(self) -> None:
        for child in reversed(self._children.values()):
            if child.timer is not None:
                child.timer.cancel()
            stopped = child.cell.stop(self.child_stop_seconds, drop=False)
            # a handler that shrugs off its cancellation is left behind in the end
            done, _ = await asyncio.wait((stopped,), timeout=3 * self.child_stop_seconds)
            if not done:
                log.error("child.abandoned", actor=child.ref.name)
