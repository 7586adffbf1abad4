"""The faults that the nemesis draws from: each is done to a victim, held for a while, and healed.

The letters are the rows of the fault matrix that they come from.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from benchmarks.rig.proxy import Edge
from benchmarks.rig.topology import DRAIN_SECONDS, Member, Topology

EVERYTHING = "redis"  # the victim of what everybody feels


class Broken(Exception):
    """A process did not do what it has to, as for instance to end with status 0 when asked."""


Act = Callable[["Scene", Member | Edge | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`on`: whom it can be done to: instance, executor, redis, redis_edge, client_edge, instances."""

    name: str
    row: str
    on: str
    act: Act
    weight: float = 1.0


@dataclass(slots=True)
class Scene:
    """Where faults happen, and the dice that decide how long."""

    topology: Topology
    dice: random.Random
    redis: Redis  # a way to Redis of the nemesis's own

    async def hold(self, least: float, most: float) -> None:
        await asyncio.sleep(self.dice.uniform(least, most))


# Processes.


async def kill(scene: Scene, member: Member) -> None:
    await member.process.kill()
    await scene.hold(0.3, 2.0)
    member.process.start()
    if member in scene.topology.instances:
        await scene.topology.ready(member)


async def freeze_shortly(scene: Scene, member: Member) -> None:
    member.process.freeze()
    await scene.hold(1.5, 2.5)
    member.process.thaw()


async def freeze_long(scene: Scene, member: Member) -> None:
    member.process.freeze()
    await scene.hold(9.0, 30.0)
    member.process.thaw()


async def restart_gently(scene: Scene, member: Member) -> None:
    status = await member.process.stop(DRAIN_SECONDS + 2.0)
    if status != 0:
        raise Broken(f"{member.name} ended with {status} after SIGTERM")
    member.process.start()
    await scene.topology.ready(member)


async def restart_all(scene: Scene, _: None) -> None:
    for member in scene.topology.instances:
        await restart_gently(scene, member)


async def stop_executor(scene: Scene, member: Member) -> None:
    member.process.send(signal.SIGTERM)
    if await member.process.ended(10.0) is None:
        await member.process.kill()
    member.process.start()


# Redis itself.


async def kill_redis(scene: Scene, _: None) -> None:
    await asyncio.to_thread(scene.topology.redis.kill)
    await scene.hold(0.2, 4.0)
    await asyncio.to_thread(scene.topology.redis.start)


async def freeze_redis(scene: Scene, _: None) -> None:
    pid = scene.topology.redis.pid
    signal.pidfd_send_signal  # noqa: B018  Linux only, as the proxy's faults are not
    import os  # noqa: PLC0415

    os.kill(pid, signal.SIGSTOP)
    await scene.hold(0.5, 4.0)
    os.kill(pid, signal.SIGCONT)


async def flush_scripts(scene: Scene, _: None) -> None:
    for _count in range(10):
        await scene.redis.script_flush()
        await asyncio.sleep(0.1)


async def kill_clients(scene: Scene, _: None) -> None:
    await scene.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]


async def kill_subscribers(scene: Scene, _: None) -> None:
    for _count in range(4):
        await scene.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.5)


# Ways between processes.


async def cut(scene: Scene, edge: Edge) -> None:
    for _ in range(scene.dice.randint(1, 5)):
        edge.cut()
        await scene.hold(0.05, 0.5)


async def refuse(scene: Scene, edge: Edge) -> None:
    await edge.refuse()
    await scene.hold(1.0, 6.0)
    await edge.heal()


async def blackhole(scene: Scene, edge: Edge) -> None:
    edge.blackhole()
    await scene.hold(1.0, 8.0)
    if scene.dice.random() < 0.5:
        edge.cut()  # else what was on its way arrives late
    await edge.heal()


async def blackhole_pubsub(scene: Scene, edge: Edge) -> None:
    edge.blackhole(pubsub_only=True)
    await scene.hold(3.0, 8.0)
    await edge.heal()


async def lose_replies(scene: Scene, edge: Edge) -> None:
    for _ in range(scene.dice.randint(3, 10)):
        edge.cut_reply(scene.dice.randint(0, 20))
        await scene.hold(0.1, 0.4)
    await edge.heal()


async def delay(scene: Scene, edge: Edge) -> None:
    edge.latency = scene.dice.choice((0.05, 0.2, 0.2, 1.0)) / 2
    await scene.hold(2.0, 6.0)
    await edge.heal()


async def throttle(scene: Scene, edge: Edge) -> None:
    edge.rate = 20_000
    await scene.hold(2.0, 6.0)
    await edge.heal()


async def storm(scene: Scene, _: None) -> None:
    for edge in scene.topology.client_edges:
        edge.cut()


FAULTS = (
    Fault("kill an orchestrator", "P1 P2", "instance", kill, 3),  # type: ignore[arg-type]
)
