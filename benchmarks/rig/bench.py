"""One run from its beginning to its end: warm-up, faults, heal, drain."""

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from benchmarks.rig.bad_input import BadInput
from benchmarks.rig.clients import close_all
from benchmarks.rig.final_state import FinalState
from benchmarks.rig.findings import Findings
from benchmarks.rig.nemesis import Nemesis
from benchmarks.rig.report import Run
from benchmarks.rig.talk import Session
from benchmarks.rig.topology import PREFIX, Topology

WARM_UP = 8.0  # seconds, at most a fifth of the faults' time
DRAIN = 30.0
CATCH_UP = 10.0
TELL_EVERY = 5.0
NOT_RUN = "power loss, replicas and fail-over, several machines, a full disk, skewed clocks"


class Bench:
    """Owns everything that runs. Whatever happens in between, `stop` ends all of it."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._dice = random.Random(options.seed)
        self._began = time.monotonic()
        control = {"FAILPOINTS": f"{options.control}=off"} if options.control else {}
        self.topology = Topology(
            folder,
            seed=options.seed,
            redis_options=("--appendfsync", options.appendfsync),
            environ=control,
        )
        self.state = FinalState(self.topology.redis.port, PREFIX)
        self._nemesis = Nemesis(self.topology, self._dice_for("nemesis"), self._tell)
        ports = self.topology.client_ports()
        self.sessions = [self._session(number, folder, ports) for number in range(options.sessions)]
        self._bad = BadInput(
            folder,
            ports,
            self.topology.redis.port,
            PREFIX,
            self.sessions,
            self._dice_for("bad input"),
        )
        self._silence = asyncio.Event()  # nobody says anything new
        self._talking: list[asyncio.Task[None]] = []
        self._telling: asyncio.Task[None] | None = None
        self._not_ready: list[str] = []
        self._caught_up: float | None = None
        self._drained: float | None = None
        self._redis_version = ""

    def _dice_for(self, whom: str) -> random.Random:
        return random.Random(f"{self._options.seed}:{whom}")

    def _session(self, number: int, folder: Path, ports: Sequence[int]) -> Session:
        tenant, name = f"tenant-{number % self._options.tenants}", f"session-{number}"
        return Session(
            tenant,
            name,
            folder,
            ports,
            self._dice_for(name),
            rate=self._options.rate,
            busy=self._options.if_busy,
        )

    async def start(self) -> None:
        self._tell(f"seed {self._options.seed}; records in {self.topology.folder}")
        await self.topology.start()
        with redis.Redis(port=self.topology.redis.port) as client:
            self._redis_version = str(client.info("server")["redis_version"])
        for session in self.sessions:
            session.open()
        await self._all_live(20.0)

    async def go(self) -> None:
        """All phases but the check."""
        seconds = self._options.minutes * 60
        self._telling = asyncio.create_task(self._tell_for_ever())
        self._talking = [asyncio.create_task(self._bad.run(self._silence))]
        self._talking += [
            asyncio.create_task(session.talk(self._silence)) for session in self.sessions
        ]
        self._tell("warm-up")
        await asyncio.sleep(min(WARM_UP, seconds / 5))
        self._tell("faults")
        if self._options.no_faults:
            await asyncio.sleep(seconds)
        else:
            await self._nemesis.rage(seconds)
        self._tell("healed; drain")
        await self._heal_and_drain()
        await self._see_who_is_ready()

    async def _heal_and_drain(self) -> None:
        self._silence.set()
        healed = time.monotonic()
        ends = await self._ends()
        while (since := time.monotonic() - healed) < DRAIN:
            if self._caught_up is None and self._has_come_to(ends):
                self._caught_up = since
            if self._caught_up is not None and await self._is_drained():
                self._drained = since
                return
            await asyncio.sleep(0.2)

    async def _see_who_is_ready(self) -> None:
        for member in self.topology.instances:
            try:
                await self.topology.ready(member, CATCH_UP)
            except (TimeoutError, RuntimeError) as error:
                self._not_ready.append(f"{member.name} is not ready: {error}")

    def _has_come_to(self, ends: Sequence[int]) -> bool:
        """Whether all tabs are connected and have seen so much of their sessions' logs."""
        return all(
            tab.is_live and tab.offset >= end
            for session, end in zip(self.sessions, ends, strict=True)
            for tab in session.tabs
        )

    async def _ends(self) -> list[int]:
        addresses = [(session.log.tenant, session.log.name) for session in self.sessions]
        return await asyncio.to_thread(self.state.ends_of, addresses)

    async def _is_drained(self) -> bool:
        """Everything that was posted has been answered and has ended, and all have seen it."""
        if not all(task.done() for task in self._talking):
            return False
        if any(session.open_tasks() for session in self.sessions):
            return False
        return not await asyncio.to_thread(self.state.pending) and self._has_come_to(
            await self._ends()
        )

    async def _all_live(self, within: float) -> None:
        async with asyncio.timeout(within):
            while not all(tab.is_live for session in self.sessions for tab in session.tabs):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        await close_all([*self._talking, *([self._telling] if self._telling else [])])
        for session in self.sessions:
            await session.close()
        await self._bad.close()
        await self._nemesis.close()
        self.state.close()
        await self.topology.stop()

    # Telling.

    def _tell(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            tabs = [tab for session in self.sessions for tab in session.tabs]
            live = sum(tab.is_live for tab in tabs)
            accepted = sum(len(session.accepted) for session in self.sessions)
            still = sum(len(session.open_tasks()) for session in self.sessions)
            faults = f"{self._nemesis.done.total()} faults, {self._nemesis.running} now"
            connected = f"{live}/{len(tabs)} connected"
            self._tell(f"  {connected}, {accepted} accepted, {still} open; {faults}")

    def result(self, command: str) -> Run:
        options = self._options
        return Run(
            command=command,
            seed=options.seed,
            control=options.control,
            redis=f"{self._redis_version}, append-only file, appendfsync {options.appendfsync}",
            sessions=len(self.sessions),
            tabs=sum(len(session.tabs) for session in self.sessions),
            tenants=options.tenants,
            seconds=options.minutes * 60,
            faults=dict(self._nemesis.done),
            caught_up_seconds=self._caught_up,
            drained_seconds=self._drained,
            not_run=NOT_RUN,
        )

    def add_findings(self, findings: Findings) -> None:
        """What only who was there can know: that it took too long, or did not end as asked."""
        if self._caught_up is None or self._caught_up > CATCH_UP:
            findings.add("late", f"all caught up after {self._caught_up} s, not {CATCH_UP:g}")
        if self._drained is None:
            still = sum(len(session.open_tasks()) for session in self.sessions)
            findings.add("late", f"not drained within {DRAIN:g} s: {still} tasks open")
        for what in (*self._nemesis.broken, *self._not_ready):
            findings.add("unhandled", what)
