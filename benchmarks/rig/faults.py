"""The faults that the nemesis draws from: each is done to a victim, held for a while, and healed.

The letters in the table below are the rows of the fault matrix that they come from.
"""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from redis.asyncio import Redis

from benchmarks.rig.topology import DRAIN_SECONDS, Member, Topology
from tests.support.proxy import Proxy

V = TypeVar("V", Member, Proxy, Topology)


class Broken(Exception):
    """A process did not do what it has to, as for instance to end with status 0 when asked."""


@dataclass(slots=True)
class Scene:
    """Where faults happen, and the dice that decide how long."""

    topology: Topology
    dice: random.Random
    redis: Redis  # a way to Redis of the nemesis's own

    async def hold(self, least: float, most: float) -> None:
        await asyncio.sleep(self.dice.uniform(least, most))


@dataclass(frozen=True, slots=True)
class Fault(Generic[V]):
    """One kind. `act` returns when it is healed; raises Broken if something was done wrong."""

    name: str
    row: str
    weight: int  # how often it is in the deck
    victims: Callable[[Topology], Sequence[V]]
    act: Callable[[Scene, V], Awaitable[None]]
    claims: Callable[[V], set[str]]  # what no other fault may be done to meanwhile


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


async def restart_all(scene: Scene, topology: Topology) -> None:
    for member in topology.instances:
        await restart_gently(scene, member)


async def stop_executor(_: Scene, member: Member) -> None:
    member.process.send(signal.SIGTERM)
    if await member.process.ended(10.0) is None:
        await member.process.kill()
    member.process.start()


# Redis itself.


async def kill_redis(scene: Scene, topology: Topology) -> None:
    await asyncio.to_thread(topology.redis.kill)
    await scene.hold(0.2, 4.0)
    await asyncio.to_thread(topology.redis.start)


async def freeze_redis(scene: Scene, topology: Topology) -> None:
    pid = topology.redis.pid
    os.kill(pid, signal.SIGSTOP)
    await scene.hold(0.5, 4.0)
    os.kill(pid, signal.SIGCONT)


async def flush_scripts(scene: Scene, _: Topology) -> None:
    for _time in range(10):
        await scene.redis.script_flush()
        await asyncio.sleep(0.1)


async def kill_clients(scene: Scene, _: Topology) -> None:
    await scene.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]


async def kill_subscribers(scene: Scene, _: Topology) -> None:
    for _time in range(4):
        await scene.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.5)


# Ways between processes.


async def cut(scene: Scene, edge: Proxy) -> None:
    for _ in range(scene.dice.randint(1, 5)):
        edge.cut()
        await scene.hold(0.05, 0.5)


async def refuse(scene: Scene, edge: Proxy) -> None:
    await edge.refuse()
    await scene.hold(1.0, 6.0)
    await edge.heal()


async def blackhole(scene: Scene, edge: Proxy) -> None:
    edge.blackhole()
    await scene.hold(1.0, 8.0)
    if scene.dice.random() < 0.5:
        edge.cut()  # else what was on its way arrives late
    await edge.heal()


async def blackhole_pubsub(scene: Scene, edge: Proxy) -> None:
    edge.blackhole(pubsub_only=True)
    await scene.hold(3.0, 8.0)
    await edge.heal()


async def lose_replies(scene: Scene, edge: Proxy) -> None:
    for _ in range(scene.dice.randint(3, 10)):
        edge.cut_reply(scene.dice.randint(0, 20))
        await scene.hold(0.1, 0.4)
    await edge.heal()


async def delay(scene: Scene, edge: Proxy) -> None:
    edge.latency = scene.dice.choice((0.05, 0.2, 0.2, 1.0)) / 2
    await scene.hold(2.0, 6.0)
    await edge.heal()


async def throttle(scene: Scene, edge: Proxy) -> None:
    edge.rate = 20_000
    await scene.hold(2.0, 6.0)
    await edge.heal()


async def storm(_: Scene, topology: Topology) -> None:
    for edge in topology.client_edges:
        edge.cut()


# The table.


def _instances(topology: Topology) -> Sequence[Member]:
    return topology.instances


def _executors(topology: Topology) -> Sequence[Member]:
    return topology.executors


def _redis_edges(topology: Topology) -> Sequence[Proxy]:
    return [member.redis_edge for member in topology.members]


def _instance_redis_edges(topology: Topology) -> Sequence[Proxy]:
    return [member.redis_edge for member in topology.instances]


def _client_edges(topology: Topology) -> Sequence[Proxy]:
    return topology.client_edges


def _all(topology: Topology) -> Sequence[Topology]:
    return [topology]


def _itself(victim: Member | Proxy) -> set[str]:
    return {victim.name}


def _redis(_: Topology) -> set[str]:
    return {"redis"}


def _every_instance(topology: Topology) -> set[str]:
    return {member.name for member in topology.instances}


def _every_client(topology: Topology) -> set[str]:
    return {edge.name for edge in topology.client_edges}


PROCESS_FAULTS = (
    Fault("kill orchestrator", "P1 P2 P12", 4, _instances, kill, _itself),
    Fault("freeze orchestrator 2 s", "P6", 2, _instances, freeze_shortly, _itself),
    Fault("freeze orchestrator 9-30 s", "P5 R19", 2, _instances, freeze_long, _itself),
    Fault("restart orchestrator", "P7", 1, _instances, restart_gently, _itself),
    Fault("kill executor", "P3", 3, _executors, kill, _itself),
    Fault("freeze executor 9-30 s", "P3 P5", 2, _executors, freeze_long, _itself),
    Fault("stop executor", "P3", 1, _executors, stop_executor, _itself),
)
EDGE_FAULTS = (
    Fault("cut way to redis", "R4b", 2, _redis_edges, cut, _itself),
    Fault("refuse way to redis", "R4a", 2, _redis_edges, refuse, _itself),
    Fault("black hole to redis", "R4c", 3, _redis_edges, blackhole, _itself),
    Fault("black hole of pub/sub", "R20", 2, _instance_redis_edges, blackhole_pubsub, _itself),
    Fault("lose replies of redis", "R6", 3, _redis_edges, lose_replies, _itself),
    Fault("latency to redis", "R7", 2, _redis_edges, delay, _itself),
    Fault("throttle way to redis", "R7", 1, _redis_edges, throttle, _itself),
    Fault("cut clients of one", "N3 N7", 2, _client_edges, cut, _itself),
    Fault("refuse clients of one", "N3", 1, _client_edges, refuse, _itself),
    Fault("black hole to clients", "N1", 2, _client_edges, blackhole, _itself),
    Fault("lose bytes to clients", "N7 P4", 2, _client_edges, lose_replies, _itself),
    Fault("latency to clients", "R7", 1, _client_edges, delay, _itself),
    Fault("throttle clients", "N2 N5", 1, _client_edges, throttle, _itself),
)
GENERAL_FAULTS = (
    Fault("kill redis", "R1 R17", 3, _all, kill_redis, _redis),
    Fault("freeze redis", "R4c", 2, _all, freeze_redis, _redis),
    Fault("flush scripts", "R17", 2, _all, flush_scripts, _redis),
    Fault("CLIENT KILL normal", "R18", 2, _all, kill_clients, _redis),
    Fault("CLIENT KILL pubsub", "R18", 2, _all, kill_subscribers, _redis),
    Fault("cut all clients", "N3", 2, _all, storm, _every_client),
    Fault("rolling restart", "P7", 1, _all, restart_all, _every_instance),
)
