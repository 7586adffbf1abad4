"""Who is let in: connections up to the limits of tenants and addresses, over all instances."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from actors.loop_actor import LoopActor
from common.domain.errors import OrchestratorError
from common.failpoints import failpoint
from common.queues.connections import LEASE_MS, RENEW_EVERY, Connections, Place
from common.queues.handshakes import BadHandshakes

log = structlog.get_logger(__name__)

RENEW_AGAIN = 0.5  # seconds, while Redis is away


@dataclass(frozen=True, slots=True)
class Enter:
    """A connection is about to come. Answered with None, or refused with RateLimited."""

    place: Place


class Settle:
    """Somebody has left, or was refused a handshake: Redis is to hear of it."""


class Renew:
    """Told by the actor to itself, every `RENEW_EVERY` seconds."""


Message = Enter | Settle | Renew


class DoorkeeperActor(LoopActor):
    """Asks Redis for places, tells it of those given back, and renews those that are held.

    All that waits shares one round trip. What is held is known to `Connections`, not to this
    actor, so a restart loses nothing. Where this instance, or Redis, was away for so long that
    leases may have ended, they are put back before anyone else is let in here.
    """

    mailbox_size = 20_000

    def __init__(self, connections: Connections, handshakes: BadHandshakes) -> None:
        super().__init__()
        self._connections = connections
        self._handshakes = handshakes
        self._renewed_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._told: set[str] = set()  # lines of the log about this outage of Redis

    def on_start(self) -> None:
        failpoint("doorkeeper.on_start")
        self.actor_ref.notify(Renew())

    async def on_batch(self, messages: Sequence[Message]) -> list[Exception | None]:
        failpoint("doorkeeper.on_batch")
        is_time = any(isinstance(message, Renew) for message in messages)
        if is_time or time.monotonic() - self._renewed_at > LEASE_MS / 1000:
            await self._renew()
        places = [message.place for message in messages if isinstance(message, Enter)]
        answers, _ = await asyncio.gather(self._enter(places), self._share())
        of_places = iter(answers)
        return [next(of_places) if isinstance(each, Enter) else None for each in messages]

    async def _enter(self, places: Sequence[Place]) -> Sequence[Exception | None]:
        try:
            return await self._connections.enter(places)
        except OrchestratorError as error:
            return [error] * len(places)

    async def _share(self) -> None:
        try:
            await self._handshakes.share()
        except OrchestratorError as error:
            self._tell_once("bad_handshakes.counted_alone", error)

    async def _renew(self) -> None:
        pause = RENEW_EVERY
        try:
            await self._connections.renew()
        except OrchestratorError as error:
            self._tell_once("leases.not_renewed", error)
            pause = RENEW_AGAIN
        else:
            self._told.clear()
            self._renewed_at = time.monotonic()
        self._forget_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(pause, self.actor_ref.notify, Renew())

    def _tell_once(self, what: str, error: OrchestratorError) -> None:
        """Each of the two once in an outage, whichever comes first."""
        if what not in self._told:
            log.warning(what, error=error.code)
        self._told.add(what)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def on_stop(self) -> None:
        failpoint("doorkeeper.on_stop")
        self._forget_timer()
        try:
            await self._connections.leave_all()
        except OrchestratorError as error:
            log.warning("connections.left_silently", error=error.code)

    def on_failure(self, *_: object) -> None:
        self._forget_timer()
