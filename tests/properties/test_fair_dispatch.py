"""However tenants send, cancel, fail and finish: what must hold of the work streams at any moment.

Generated histories on a real Redis; between any two steps a dispatcher may die and be repeated.
"""

import asyncio
import uuid
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.domain.actions import IfBusy, Priority
from common.domain.ids import SessionKey, TaskId
from common.queues.keys import WORK_GROUP
from config.settings import TierSettings
from tests.support.redis_server import RedisServer
from tests.support.stores import Stores, key_of, message, stores

PREFETCH, MAX_RUNNING, TENANTS = 3, 2, 3
FAILURE = {"error": {"type": "busy", "message": "try again"}, "retryable": True}
Ways = tuple[str, int, int]  # what happens, and two numbers that choose to whom


@dataclass
class World:
    """Tenants, a worker, and what it saw."""

    stores: Stores
    open: dict[TaskId, SessionKey] = field(default_factory=dict)
    taken: dict[TaskId, tuple[str, bytes]] = field(default_factory=dict)
    rounds: Counter[TaskId] = field(default_factory=Counter)
    retries: Counter[TaskId] = field(default_factory=Counter)
    untaken: int = 0

    async def do(self, way: Ways) -> None:
        what, one, other = way
        match what:
            case "send":
                await self._send(one, other, is_told=True)
            case "send and die":
                await self._send(one, other, is_told=False)
            case "take":
                await self._take()
            case "finish" | "retry" if self.taken:
                await self._report(sorted(self.taken)[one % len(self.taken)], what)
            case "cancel" if self.open:
                task_id = sorted(self.open)[one % len(self.open)]
                session = self.open[task_id]
                if await self.stores.cancel(task_id, tenant_id=session.tenant_id) == "cancelled":
                    del self.open[task_id]
            case "look" if self.open:
                task_id = sorted(self.open)[one % len(self.open)]
                await self.stores.look(task_id, self.open[task_id])
        await self.check()

    async def _send(self, tenant: int, rest: int, *, is_told: bool) -> None:
        session = key_of(f"s{rest % 2}", f"t{tenant % TENANTS}")
        ways = (IfBusy.PARALLEL, IfBusy.ENQUEUE)
        action = message(session, priority=list(Priority)[rest % 3], if_busy=ways[rest % 2])
        (submitted,) = await self.stores.submissions.submit([action])
        assert not isinstance(submitted, Exception)
        self.open[action.task_id] = session
        if is_told:
            await self.stores.submissions.set_out([(action, submitted)])

    async def _take(self) -> None:
        for stream in self.stores.keys.work_streams:
            reply = await self.stores.redis.call(
                *("XREADGROUP", "GROUP", WORK_GROUP, "w", "COUNT", 1, "STREAMS", stream, ">")
            )
            if reply:
                ((entry_id, fields),) = reply[0][1]
                task_id = TaskId(fields[1].decode())
                self.rounds[task_id] += 1
                assert self.rounds[task_id] <= 1 + self.retries[task_id], "moved twice"
                self.taken[task_id] = (stream, entry_id)
                return

    async def _report(self, task_id: TaskId, what: str) -> None:
        stream, entry_id = self.taken.pop(task_id)
        await self.stores.redis.call("XACK", stream, WORK_GROUP, entry_id)
        await self.stores.redis.call("XDEL", stream, entry_id)
        session = self.open.get(task_id)
        if session is None:
            return
        attempt = self.rounds[task_id]
        end = (
            (attempt, 2, "failed", FAILURE)
            if what == "retry"
            else (attempt, 2, "completed", {"response": ""})
        )
        self.retries[task_id] += what == "retry"
        await self.stores.report(task_id, (attempt, 1, "started", {}), end, session=session)
        task = await self.stores.task(task_id, session.tenant_id)
        if task.status.is_terminal:
            del self.open[task_id]

    async def check(self) -> None:
        redis, keys = self.stores.redis, self.stores.keys
        untaken = taken = 0
        for stream in keys.work_streams:
            pending = (await redis.call("XPENDING", stream, WORK_GROUP))[0]
            untaken += await redis.call("XLEN", stream) - pending
            taken += pending
        if untaken > self.untaken:
            assert untaken <= max(PREFETCH, taken)
        self.untaken = untaken
        for tenant in {session.tenant_id for session in self.open.values()}:
            running = await redis.call("SCARD", f"{keys.prefix}tenant:{{{tenant}}}:running")
            assert running <= MAX_RUNNING

    async def let_all_end(self) -> None:
        """No task is left behind: after a look at each, workers can finish them all."""
        for _ in range(4 * len(self.open) + 4):
            if not self.open:
                break
            for task_id, session in list(self.open.items()):
                await self.stores.look(task_id, session)
            await self._take()
            for task_id in list(self.taken):
                await self._report(task_id, "finish")
            await self.check()
        assert not self.open


ways = st.tuples(
    st.sampled_from(["send", "send", "send and die", "take", "take", "finish", "retry", "cancel"]),
    st.integers(0, 11),
    st.integers(0, 11),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(ways, max_size=40))
def test_whatever_happens_nobody_exceeds_a_share_or_is_left_behind(
    redis_server: RedisServer, history: list[Ways]
) -> None:
    asyncio.run(go(redis_server.url, history))


async def go(url: str, history: list[Ways]) -> None:
    async with stores(
        url,
        f"{uuid.uuid4()}:",
        prefetch=PREFETCH,
        retry_backoff_ms=0,
        max_attempts=100,
        tier_of=lambda _: TierSettings(max_running=MAX_RUNNING),
    ) as each:
        await each.work.ensure_groups()
        world = World(each)
        for way in history:
            await world.do(way)
        await world.let_all_end()
