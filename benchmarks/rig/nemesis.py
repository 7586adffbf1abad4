"""Draws faults, one every few seconds, and writes down when each began and ended."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Drawn:
    """A fault with its victim, ready to happen."""

    name: str
    victim: str
    claims: set[str]
    act: Callable[[], Awaitable[None]]


Card = Callable[[], Drawn]


class Nemesis:
    """Seeded: the same seed draws the same faults as long as they last as long."""

    def __init__(
        self, topology: Topology, dice: random.Random, tell: Callable[[str], None]
    ) -> None:
        self.done: Counter[str] = Counter()
        self.broken: list[str] = []
        self.claimed: set[str] = set()  # what no other fault may be done to now
        self._tell = tell
        self._dice = dice
        self._topology = topology
        self._redis = Redis(port=topology.redis.port, socket_timeout=10.0)
        self._scene = Scene(topology, dice, self._redis)
        self._deck = self._shuffled()
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
        drawn = self.draw()
        if drawn is not None:
            task = asyncio.create_task(self.happen(drawn))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def draw(self) -> Drawn | None:
        """The next of the deck whose victim is free; None if there is none just now."""
        for card in self._deck:
            drawn = card()
            if not drawn.claims & self.claimed:
                self._deck.remove(card)
                self._deck = self._deck or self._shuffled()
                return drawn
        return None

    def _shuffled(self) -> list[Card]:
        """All kinds, each as often as it weighs: none is left out for long."""
        deck = [self._card(fault) for fault in PROCESS_FAULTS for _ in range(fault.weight)]
        deck += [self._card(fault) for fault in EDGE_FAULTS for _ in range(fault.weight)]
        deck += [self._card(fault) for fault in GENERAL_FAULTS for _ in range(fault.weight)]
        self._dice.shuffle(deck)
        return deck

    def _card(self, fault: Fault[V]) -> Card:
        return lambda: self._draw_of(fault)

    def _draw_of(self, fault: Fault[V]) -> Drawn:
        victim = self._dice.choice(fault.victims(self._topology))
        act = fault.act
        claims = fault.claims(victim)
        return Drawn(fault.name, victim.name, claims, lambda: act(self._scene, victim))

    async def happen(self, drawn: Drawn) -> None:
        """From its beginning until it is healed, both written down."""
        about = f"{drawn.name}: {drawn.victim}"
        self.claimed |= drawn.claims
        began = unix_ms()
        self._journal.write(began=drawn.name, victim=drawn.victim)
        self._tell(about)
        try:
            await drawn.act()
        except (Broken, RuntimeError, TimeoutError, AssertionError) as error:
            self.broken.append(f"{about}: {error or type(error).__name__}")
            self._tell(f"BROKEN {self.broken[-1]}")
        except (exceptions.RedisError, OSError) as error:
            self._tell(f"{about}: cut short by {error!r}")
        finally:
            self.claimed -= drawn.claims
            self.done[drawn.name] += 1
            self._journal.write(ended=drawn.name, victim=drawn.victim, took=unix_ms() - began)
