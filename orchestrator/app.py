"""What handlers are given: the ways to the actors, and facts about this instance."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from weakref import WeakSet

from pykka import ActorDeadError, Timeout

from actors.counters import Counters
from actors.loop_actor import LoopRef
from actors.supervision_log import SupervisionLog
from actors.supervisor import SupervisorRef
from common.domain.errors import Draining, Overloaded, RedisUnavailable
from common.queues.connections import Connections
from common.queues.dead_letters import DeadLetters
from common.queues.handshakes import BadHandshakes
from common.queues.redis import Redis
from common.queues.session_log import SessionLog
from common.queues.streams import ConsumerStream
from common.queues.usage import Usage
from common.queues.work import WorkQueue
from config.settings import Settings
from orchestrator.addresses import Addresses
from orchestrator.auth.authenticator import Authenticator
from orchestrator.loop_watch import LoopWatch
from orchestrator.schemas import Schemas

ANSWER_WITHIN = 2.9  # seconds; a caller gets its 503 within three
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Phase(StrEnum):
    """What this instance is doing."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True)
class App:
    """One instance, as its edge sees it."""

    settings: Settings
    version: str
    instance_id: str
    schemas: Schemas
    authenticator: Authenticator
    redis: Redis
    session_log: SessionLog
    work: WorkQueue
    callback_stream: ConsumerStream
    dead_letters: DeadLetters
    usage: Usage
    addresses: Addresses
    connections: Connections
    handshakes: BadHandshakes
    doorkeeper: LoopRef
    router: LoopRef
    manager: LoopRef
    supervisor: SupervisorRef
    supervision_log: SupervisionLog
    counters: Counters
    loop_watch: LoopWatch = field(default_factory=LoopWatch)
    requests: WeakSet[Any] = field(default_factory=WeakSet)  # being handled
    sockets: int = 0  # open, or being opened
    phase: Phase = Phase.STARTING
    started_at: float = field(default_factory=time.monotonic)

    @property
    def uptime_seconds(self) -> float:
        return round(time.monotonic() - self.started_at, 3)

    def refuse_new_work(self) -> None:
        """Raises Draining while this instance stops."""
        if self.phase is not Phase.SERVING:
            raise Draining


async def ask(ref: LoopRef, message: object) -> Any:
    """An actor's answer.

    Raises:
        RedisUnavailable: no answer in time; whatever is slow here, it is Redis.
        Draining, Overloaded, and what the actor raises.
    """
    try:
        return await ref.ask(message, timeout=ANSWER_WITHIN)
    except Timeout as error:
        raise RedisUnavailable from error
    except ActorDeadError as error:
        raise Draining from error
    except asyncio.CancelledError as error:
        raise Overloaded from error
