"""One orchestrator, one client, and an executor that does exactly what a test says.

All of the bench's parts but the dice: what happens is recorded as in a bench, and judged by the
same checker. `switched_off` names a safeguard that the orchestrator then goes without.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from benchmarks.rig import http
from benchmarks.rig.attempt import Action, Callback, Plan
from benchmarks.rig.checker import Checker
from benchmarks.rig.clients import Log, Tab, close_all
from benchmarks.rig.final_state import FinalState
from benchmarks.rig.findings import Findings
from benchmarks.rig.records import Journal
from benchmarks.rig.topology import PREFIX, Member, Topology

GROUP, STREAM = "agent-execution", f"{PREFIX}execute:normal"
WITHIN = 30.0  # seconds; what should happen happens in a fraction of that


class Stage:
    """What a test acts on."""

    def __init__(self, folder: Path, topology: Topology, *, is_safe: bool) -> None:
        self.topology = topology
        self._is_safe = is_safe
        self.log = Log("t", "s", folder)
        self._folder = folder
        self._entry = b""
        self._journal = Journal(folder / "executor-1.jsonl")
        self._redis = aioredis.Redis(port=topology.redis.port)
        ports = topology.client_ports()
        self.tab = Tab(self.log, 0, ports, random.Random(0), compact=False)
        self._listening = asyncio.create_task(self.tab.run())

    @property
    def instance(self) -> Member:
        return self.topology.instances[0]

    async def task(self) -> Action:
        """A message, accepted by REST and taken from its work stream."""
        await self.until(lambda: self.tab.is_live)
        body = {"tenant_id": "t", "session_id": "s", "agent_id": "bench", "message": "t|s|key"}
        answer = await http.post(self.topology.client_ports()[0], "/api/chat/send", body)
        self.log.write(key="key", status=answer.status, took=1, answer=answer.json())
        async with asyncio.timeout(WITHIN):
            while not (taken := await self._take()):
                await asyncio.sleep(0.01)
        ((_, ((self._entry, fields),)),) = taken
        action = Action.read(fields)
        assert action is not None
        return action

    async def _take(self) -> Any:
        try:
            return await self._redis.xreadgroup(GROUP, "scripted", {STREAM: ">"})
        except ResponseError as error:
            if "NOGROUP" not in str(error):  # the orchestrator has not made it yet
                raise
            return None

    async def begin(self, action: Action) -> Plan:
        """A new attempt, as the contract counts it."""
        attempt = await self._redis.incr(f"{PREFIX}attempt:{action.task}")
        self._journal.write(task=action.task, attempt=attempt, by="scripted")
        return Plan(action, attempt)

    async def attempt(self, action: Action, deltas: int = 1, *, is_whole: bool = True) -> Plan:
        """A new attempt that streams so many texts and, if it is whole, completes; not yet sent."""
        plan = await self.begin(action)
        plan.add("started")
        for _ in range(deltas):
            plan.add("delta", text=plan.marked())
        if is_whole:
            plan.finish("completed", agent_info={"mark": plan.marked()})
        return plan

    async def send(self, action: Action, *callbacks: Callback) -> None:
        """Adds callbacks all at once: an instance reads them together."""
        pipeline = self._redis.pipeline(transaction=True)
        for each in callbacks:
            self._journal.write(**each.record())
            pipeline.execute_command("XADD", action.callback_stream, "*", *each.fields(action))
        await pipeline.execute()

    async def conclude(self, action: Action, last: Callback) -> None:
        """Sends the end of an attempt, and is done with the work entry."""
        await self.send(action, last)
        self._journal.write(concluded=action.task, attempt=last.attempt, number=last.number)
        await self._redis.xack(STREAM, GROUP, self._entry)
        await self._redis.xdel(STREAM, self._entry)

    async def handled(self, action: Action) -> None:
        """Returns when all callbacks have been read and done with."""
        async with asyncio.timeout(WITHIN):
            while await self._redis.xlen(action.callback_stream):
                await asyncio.sleep(0.01)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not holds():
                await asyncio.sleep(0.01)

    async def judged(self) -> Findings:
        """What the checker finds once the client has all that there is.

        With all safeguards on everything is done with in the end, which is waited for.
        """
        state = FinalState(self.topology.redis.port, PREFIX)
        (end,) = state.ends_of([("t", "s")])
        await self.until(lambda: self.tab.is_live and self.tab.offset >= end)
        try:
            if self._is_safe:
                await self.until(lambda: not state.pending())
            return Checker(self._folder, state).check()
        finally:
            state.close()

    async def close(self) -> None:
        await close_all([self._listening])
        self.log.close()
        self._journal.close()
        await self._redis.aclose()


@contextlib.asynccontextmanager
async def stage(folder: Path, switched_off: str | None) -> AsyncIterator[Stage]:
    environ = {"FAILPOINTS": f"{switched_off}=off"} if switched_off else {}
    topology = Topology(folder, instances=1, executors=0, workers=0, environ=environ)
    try:
        await topology.start()
        made = Stage(folder, topology, is_safe=switched_off is None)
        try:
            yield made
        finally:
            await made.close()
    finally:
        await topology.stop()
