"""What the bench's executor reports about one attempt: made up, seeded by task and attempt."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import orjson

from benchmarks.rig.records import SHORT, Marker


@dataclass(frozen=True, slots=True)
class Action:
    """What a work entry says, as far as it matters here."""

    task: str
    tenant: str
    session: str
    behave: str
    deadline: int
    max_attempts: int
    callback_stream: str

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Self | None:
        """None if nobody could run it."""
        try:
            action = orjson.loads(fields[b"action"])
            return cls(
                task=fields[b"task_id"].decode(),
                tenant=action["tenant_id"],
                session=action["session_id"],
                behave=action["context"].get("behave", ""),
                deadline=action["deadline"],
                max_attempts=action["max_attempts"],
                callback_stream=action["callback_stream"],
            )
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Callback:
    """One report. `number` counts what of the attempt is visible and marked; 0: it is not."""

    task: str
    attempt: int
    seq: int
    type: str
    data: bytes
    number: int = 0

    def fields(self, action: Action) -> list[Any]:
        """Field, value, field, value …, for XADD."""
        who = ["task_id", self.task, "tenant_id", action.tenant, "session_id", action.session]
        what = ["attempt", self.attempt, "seq", self.seq, "type", self.type, "data", self.data]
        return [*who, *what]

    def record(self) -> dict[str, Any]:
        """What is written down of it before it is sent."""
        made = {"task": self.task, "attempt": self.attempt, "seq": self.seq, "type": self.type}
        return {**made, "number": self.number, "data": orjson.Fragment(self.data)}


@dataclass(frozen=True, slots=True)
class Step:
    """A callback, and how long the agent thinks after it."""

    callback: Callback
    pause: float


class Plan:
    """All that an attempt reports: `steps`, then `end` (nothing but a cancellation if `hangs`)."""

    def __init__(self, action: Action, attempt: int) -> None:
        self.hangs = action.behave == "hang"
        self.steps: list[Step] = []
        self.end: Sequence[Callback] = ()
        self._action = action
        self._attempt = attempt
        self._mark = Marker(action.tenant, action.session, action.task, attempt)
        self._seq = self._number = 0

    def add(self, kind: str, pause: float = 0.0, **data: Any) -> None:
        self.steps.append(Step(self._next(kind, data), pause))

    def marked(self) -> str:
        """A mark for the data of the callback that is made next."""
        self._number += 1
        return self._mark()

    def finish(self, kind: str, **data: Any) -> None:
        self.end = (self._next(kind, data),)

    def cancelled(self, seq: int) -> Callback:
        """Ends the attempt after what was sent before `seq`."""
        return Callback(self._action.task, self._attempt, seq, "cancelled", b"{}")

    def afterthought(self, seq: int) -> Callback:
        """A delta after the end, which nobody may see."""
        return replace(self._next("delta", {"text": f"{self.marked()} too late "}), seq=seq)

    def _next(self, kind: str, data: Mapping[str, Any]) -> Callback:
        self._seq += 1
        encoded = orjson.dumps(data)
        number = self._number if "⟦".encode() in encoded else 0
        return Callback(self._action.task, self._attempt, self._seq, kind, encoded, number)


def plan_of(action: Action, attempt: int, dice: random.Random) -> Plan:
    """Some deltas, a few tool calls and signs of life between them, and an end."""
    plan = Plan(action, attempt)
    plan.add("started")
    for _ in range(dice.choice((3, 8, 15, 30))):
        pause = dice.uniform(0.005, 0.08)
        plan.add("delta", pause, text=f"{plan.marked()} word ")
        if dice.random() < 0.05:
            plan.add("typing")
        if dice.random() < 0.1:
            plan.add("event", pause, name="tool_call", arguments=[], mark=plan.marked())
        if dice.random() < 0.1:
            plan.add("progress", progress=dice.randint(0, 100), message=plan.marked())
        if dice.random() < 0.02:
            plan.add("no_such_type", text="set aside, and counted as received")
    _end(plan, action, attempt, dice)
    return plan


def _end(plan: Plan, action: Action, attempt: int, dice: random.Random) -> None:
    if action.behave == "retry" and attempt == 1:
        plan.finish("failed", error={"type": "passing", "message": "try again"}, retryable=True)
    elif action.behave == "fail":
        plan.finish("failed", error={"type": "asked_for", "message": plan.marked()})
    elif action.behave != "hang":
        said = {"response": SHORT} if dice.random() < 0.5 else {}  # else: what was streamed
        plan.finish("completed", **said, agent_info={"mark": plan.marked()})
