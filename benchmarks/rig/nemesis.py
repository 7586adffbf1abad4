"""Draws faults, one every few seconds, and writes down when each began and ended."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from redis import exceptions
from redis.asyncio import Redis

from benchmarks.rig.faults import (
    EDGE_FAULTS,
    GENERAL_FAULTS,
    PROCESS_FAULTS,
    Broken,
    Fault,
    Scene,
    V,
)
from benchmarks.rig.records import Journal, unix_ms
from benchmarks.rig.topology import Topology

AT_ONCE = 3
EVERY = (3.0, 5.0)  # seconds

Drawn = tuple[str, str, set[str], Callable[[], Awaitable[None]]]  # kind, victim, claims, act


class Nemesis:
    """Seeded: the same seed draws the same faults as long as they last as long."""

    def __init__(
        self, topology: Topology, dice: random.Random, tell: Callable[[str], None]
    ) -> None:
        self.done: Counter[str] = Counter()
        self.broken: list[str] = []
        self._tell = tell
        self._dice = dice
        self._topology = topology
        self._redis = Redis(port=topology.redis.port, socket_timeout=10.0)
        self._scene = Scene(topology, dice, self._redis)
        self._claimed: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._journal = Journal(topology.folder / "nemesis.jsonl")

    @property
    def running(self) -> int:
        return len(self._running)

    async def rage(self, seconds: float) -> None:
        """Faults for so long; returns when the last one is healed."""
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            if len(self._running) < AT_ONCE:
                self._begin()
            await asyncio.sleep(min(left, self._dice.uniform(*EVERY)))
        if self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await self._redis.aclose()
        self._journal.close()

    def _begin(self) -> None:
        drawn = self._draw()
        if drawn is not None:
            task = asyncio.create_task(self._happen(*drawn))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _draw(self) -> Drawn | None:
        """One that claims nothing that is claimed; None if the dice found none in a few throws."""
        groups = (PROCESS_FAULTS, EDGE_FAULTS, GENERAL_FAULTS)
        weights = [sum(fault.weight for fault in group) for group in groups]
        for _ in range(20):
            match self._dice.choices(range(3), weights)[0]:
                case 0:
                    drawn = self._draw_of(self._pick(PROCESS_FAULTS))
                case 1:
                    drawn = self._draw_of(self._pick(EDGE_FAULTS))
                case _:
                    drawn = self._draw_of(self._pick(GENERAL_FAULTS))
            if not drawn[2] & self._claimed:
                return drawn
        return None

    def _pick(self, faults: tuple[Fault[V], ...]) -> Fault[V]:
        return self._dice.choices(faults, [fault.weight for fault in faults])[0]

    def _draw_of(self, fault: Fault[V]) -> Drawn:
        victim = self._dice.choice(fault.victims(self._topology))
        act = fault.act
        return fault.name, victim.name, fault.claims(victim), lambda: act(self._scene, victim)

    async def _happen(
        self, kind: str, victim: str, claims: set[str], act: Callable[[], Awaitable[None]]
    ) -> None:
        self._claimed |= claims
        began = unix_ms()
        self._journal.write(began=kind, victim=victim)
        self._tell(f"{kind}: {victim}")
        try:
            await act()
        except (Broken, RuntimeError, TimeoutError, AssertionError) as error:
            self.broken.append(f"{kind}: {victim}: {error or type(error).__name__}")
            self._tell(f"BROKEN {self.broken[-1]}")
        except (exceptions.RedisError, OSError) as error:
            self._tell(f"{kind}: {victim}: cut short by {error!r}")
        finally:
            self._claimed -= claims
            self.done[kind] += 1
            self._journal.write(ended=kind, victim=victim, took=unix_ms() - began)
