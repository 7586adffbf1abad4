"""Whatever arrives in whatever order: Redis comes out as the model of `common/domain/delivery.py`.

A generated list of steps is done twice: to the model, and to the real scripts on a real Redis.
After each of them outcomes and statuses are compared, in the end the whole log and all that is
known of every task. `HYPOTHESIS_PROFILE=thorough` tries many more lists.
"""

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.domain.callbacks import DeadReason, read_callback
from common.domain.delivery import Limits, Outcome, SessionDelivery
from common.domain.ids import TaskId
from common.queues.streams import Entry
from tests.support.redis_server import RedisServer
from tests.support.stores import OTHER_SESSION, SESSION, Stores, callback_fields, entry_of, stores

MAX_ATTEMPTS = 3
MAX_PARKED = 4
MAX_BYTES = 2000
TASKS = 2

Fields = dict[str, str | bytes | int]
DATA: list[tuple[str, Any]] = [
    ("started", {}),
    ("delta", {"text": "héllo "}),
    ("delta", b'{"text":"x", "n":12345678901234567890, "e":[], "o":{}}'),
    ("event", {"name": "tool", "deep": [[]]}),
    ("progress", {"progress": 40, "message": "reading", "more": 1}),
    ("progress", {"progress": 0.5}),
    ("typing", {}),
    ("completed", {"response": "done", "usage": {"input_tokens": 1}}),
    ("completed", b'{ "sources": [] }'),
    ("completed", {}),
    ("failed", {"error": {"type": "boom", "message": "broken"}}),
    ("failed", {"error": {}, "retryable": True}),
    ("cancelled", {}),
    # What cannot be used.
    ("delta", {}),
    ("delta", b"[1]"),
    ("delta", {"text": "x" * MAX_BYTES}),
    ("completed", b"{"),
    ("failed", {"error": "x" * MAX_BYTES}),
    ("finished", {}),
]
USEFUL = [each for each in DATA[:7] if each[0] != "typing"]


@dataclass(frozen=True)
class Deliver:
    """One read of the stream: these callbacks, in this order; perhaps applied twice."""

    callbacks: list[tuple[int, Fields]]  # which task, and changes of its fields
    again: bool


@dataclass(frozen=True)
class Cancel:
    task: int


@dataclass(frozen=True)
class Look:
    """Somebody looks at a task: gaps and grace periods are over."""

    task: int


@dataclass(frozen=True)
class Expire:
    """A task's deadline passes; nobody has looked yet."""

    task: int


Step = Deliver | Cancel | Look | Expire

tasks = st.integers(0, TASKS - 1)
places = st.tuples(
    st.sampled_from([1, 1, 1, 2, 2, 3, 4, 0]),
    st.sampled_from([1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 9, 0]),
)


@st.composite
def callbacks(draw: st.DrawFn) -> tuple[int, Fields]:
    attempt, seq = draw(places)
    kind, data = draw(st.sampled_from(DATA) | st.sampled_from(USEFUL))
    fields: Fields = {"attempt": attempt, "seq": seq, "type": kind}
    fields["data"] = data if isinstance(data, bytes) else orjson.dumps(data)
    rare = draw(st.integers(0, 29))
    if rare == 0:
        fields["task_id"] = "stranger"
    elif rare == 1:
        fields["session_id"] = OTHER_SESSION.session_id
    elif rare == 2:
        fields["tenant_id"] = draw(st.sampled_from(["other", "", "no id!"]))
    elif rare == 3:
        fields["attempt"] = "first"
    return draw(tasks), fields


@st.composite
def runs(draw: st.DrawFn) -> list[Deliver]:
    """What an honest worker reports, shuffled, doubled and cut: the usual trouble."""
    task, attempt = draw(tasks), draw(st.integers(1, 3))
    middle = draw(st.lists(st.sampled_from(USEFUL[1:]), max_size=3))
    whole = [USEFUL[0], *middle, draw(st.sampled_from(DATA[7:13]))]
    reported: list[tuple[int, Fields]] = [
        (
            task,
            {
                "attempt": attempt,
                "seq": seq,
                "type": kind,
                "data": data if isinstance(data, bytes) else orjson.dumps(data),
            },
        )
        for seq, (kind, data) in enumerate(whole, start=1)
    ]
    doubled = reported + draw(st.lists(st.sampled_from(reported), max_size=2))
    order = draw(st.permutations(doubled))
    cut = draw(st.integers(0, len(order)))
    return [Deliver(part, draw(st.booleans())) for part in (order[:cut], order[cut:]) if part]


steps = st.one_of(
    st.builds(Deliver, st.lists(callbacks(), min_size=1, max_size=8), st.booleans()).map(
        lambda step: [step]
    ),
    runs(),
    st.builds(Cancel, tasks).map(lambda step: [step]),
    st.builds(Look, tasks).map(lambda step: [step]),
    st.builds(Expire, tasks).map(lambda step: [step]),
)
histories = st.lists(steps, min_size=1, max_size=8).map(
    lambda some: list(itertools.chain.from_iterable(some))
)


@dataclass
class Both:
    """The model and the real thing, going the same way."""

    stores: Stores
    model: SessionDelivery = field(
        default_factory=lambda: SessionDelivery(
            Limits(max_attempts=MAX_ATTEMPTS, max_parked=MAX_PARKED, gap_timeout=0, cancel_grace=0)
        )
    )
    tasks: list[TaskId] = field(default_factory=list)
    entries: int = 0
    now: int = 0

    async def begin(self) -> None:
        for _ in range(TASKS):
            task_id = await self.stores.submit_and_deliver()
            self.model.submit(task_id)
            self.tasks.append(task_id)
        await self.stores.callbacks.stream.ensure_group()

    async def do(self, step: Step) -> None:
        self.now += 1
        match step:
            case Deliver(some, again):
                entries = [self._entry(task, fields) for task, fields in some]
                await self._deliver(entries)
                if again:
                    await self._deliver(entries)
            case Cancel(task):
                await self._cancel(self.tasks[task])
            case Look(task):
                await self._look(self.tasks[task])
            case Expire(task):
                self.model.tasks[self.tasks[task]].deadline = 0
                record = self.stores.keys.task(SESSION, self.tasks[task])
                await self.stores.redis.call("HSET", record, "deadline", 1)
        for task_id in self.tasks:
            known = await self.stores.task(task_id)
            assert known.status == self.model.tasks[task_id].status

    def _entry(self, task: int, changes: Fields) -> Entry:
        self.entries += 1
        fields = callback_fields(self.tasks[task], 1, 1, "", b"")
        return entry_of({**fields, **changes}, f"{self.entries}-0")

    async def _deliver(self, entries: list[Entry]) -> None:
        expected: Counter[str] = Counter()
        for entry in entries:
            outcome = self._model(entry)
            if outcome is not None:
                expected[outcome] += 1
        applied = await self.stores.callbacks.apply(entries)
        assert applied.outcomes == expected

    def _model(self, entry: Entry) -> Outcome | None:
        """The outcome that is counted: none for what becomes a dead letter."""
        if self._is_mismatch(entry):
            return None
        read = read_callback(entry.fields, MAX_BYTES, MAX_ATTEMPTS)
        outcome = self.model.receive(read, self.now)
        return outcome if not isinstance(getattr(read, "reason", None), DeadReason) else None

    def _is_mismatch(self, entry: Entry) -> bool:
        names = (entry.fields[b"tenant_id"], entry.fields[b"session_id"])
        own = (SESSION.tenant_id.encode(), SESSION.session_id.encode())
        return any(
            name not in (mine, b"", b"no id!") for name, mine in zip(names, own, strict=True)
        )

    async def _cancel(self, task_id: TaskId) -> None:
        was_over = self.model.tasks[task_id].status.is_terminal
        self.model.tasks[task_id].cancel("enough", self.now)
        if not was_over:
            assert await self.stores.cancel(task_id, "enough") == self.model.tasks[task_id].status

    async def _look(self, task_id: TaskId) -> None:
        model = self.model.tasks[task_id]
        model.look(self.now)
        ended = await self.stores.look(task_id)
        assert ended == (model.status if model.status.is_terminal else None)

    async def compare(self) -> None:
        """All that is left in the end."""
        events = await self.stores.events()
        assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
        assert [_comparable(e["type"], e["task_id"], e["data"]) for e in events] == [
            _comparable(told.type, told.task_id, told.data) for told in self.model.log
        ]
        for task_id, model in self.model.tasks.items():
            task = await self.stores.task(task_id)
            assert (task.attempt or 0, task.progress) == (model.attempt, model.progress)
            result = orjson.loads(task.result) if task.result else {}
            assert result.get("partial", False) == (model.partial is not None)
            assert result.get("response") == (
                model.partial if model.response is None else model.response
            )
            error = orjson.loads(task.error)["error_type"] if task.error else None
            assert error == model.error_type
            waiting = self.stores.keys.task_waiting(SESSION, task_id)
            assert await self.stores.redis.call("ZCARD", waiting) == len(model.waiting)
            parked = self.stores.keys.task_parked(SESSION, task_id)
            assert await self.stores.redis.call("HLEN", parked) == len(model.waiting)


def _comparable(type_: str, task_id: str, data: Mapping[str, Any]) -> Any:
    """Without what the model leaves out: messages of errors, and what a user said."""
    if type_ == "user_message":
        return (type_, task_id)
    return (
        str(type_),
        task_id,
        {k: v for k, v in data.items() if (type_, k) != ("error", "message")},
    )


async def go_both_ways(url: str, history: list[Step]) -> None:
    async with stores(
        url,
        f"t-{secrets.token_hex(6)}:",
        max_attempts=MAX_ATTEMPTS,
        max_parked=MAX_PARKED,
        max_bytes=MAX_BYTES,
        gap_timeout_ms=0,
        cancel_grace_ms=0,
        retry_backoff_ms=0,
    ) as each:
        both = Both(each)
        await both.begin()
        for step in history:
            await both.do(step)
        await both.compare()


def reported(attempt: int, seq: int, kind: str, data: Any) -> tuple[int, Fields]:
    fields: Fields = {"attempt": attempt, "seq": seq, "type": kind, "data": orjson.dumps(data)}
    return 0, fields


ONE, TWO = ({"text": "one "}, {"text": "two "})
RETRY = {"error": {}, "retryable": True}
EXAMPLES: list[list[Step]] = [
    [Deliver([reported(1, seq, "delta", ONE) for seq in (2, 3, 4, 5, 6)], again=True)],
    [Deliver([reported(2, 2, "completed", {}), reported(2, 1, "started", {})], again=True)],
    [Deliver([reported(1, 2, "delta", {}), reported(1, 1, "started", {})], again=True), Cancel(0)],
    [
        Deliver([reported(1, 1, "delta", ONE)], again=False),
        Deliver([reported(2, 1, "delta", TWO)], again=False),
        Deliver([reported(2, 2, "failed", {"error": {}})], again=False),
    ],
    [
        Deliver([reported(1, 1, "delta", ONE), reported(1, 2, "failed", RETRY)], again=True),
        Deliver([reported(1, 3, "delta", ONE), reported(2, 1, "delta", TWO)], again=True),
        Deliver([reported(3, 1, "failed", RETRY)], again=True),
    ],
    [
        Deliver([reported(1, 1, "started", {})], again=False),
        Expire(0),
        Deliver([reported(1, 2, "cancelled", {})], again=True),
    ],
    [
        Deliver([reported(1, 1, "started", {})], again=False),
        Cancel(0),
        Expire(0),
        Deliver([reported(1, 2, "cancelled", {})], again=True),
    ],
    [Deliver([reported(1, 1, "started", {}), reported(1, 3, "delta", ONE)], again=True), Look(0)],
    [
        Deliver([reported(1, 1, "started", {})], again=False),
        Cancel(0),
        Deliver([reported(1, 2, "failed", RETRY)], again=True),
    ],
]


@pytest.mark.parametrize("history", EXAMPLES)
def test_redis_comes_out_as_the_model_in_known_cases(
    redis_server: RedisServer, history: list[Step]
) -> None:
    asyncio.run(go_both_ways(redis_server.url, history))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(histories)
def test_redis_comes_out_as_the_model(redis_server: RedisServer, history: list[Step]) -> None:
    asyncio.run(go_both_ways(redis_server.url, history))
