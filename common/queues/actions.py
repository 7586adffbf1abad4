"""Pushes of other services: stream `P`+`actions`, and broadcasts to all instances (section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from common.domain.actions import WebSocketBroadcastAction
from common.domain.callbacks import DeadReason
from common.domain.events import encode_entry
from common.domain.ids import SessionId, TenantId
from common.domain.times import now_ms, rfc3339
from common.queues.dead_letters import DeadLetters
from common.queues.keys import ACTIONS_GROUP, Keys
from common.queues.redis import Redis
from common.queues.scripts import BROADCAST
from common.queues.session_log import REMEMBER_ACTIONS
from common.queues.streams import ConsumerStream, Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """A broadcast on its way to the connections of a tenant: an entry without address."""

    tenant_id: TenantId
    target_sessions: frozenset[SessionId] | None
    entry: bytes


class ActionQueue:
    """The stream of pushes, and the channel on which all instances hear broadcasts."""

    def __init__(self, redis: Redis, keys: Keys, letters: DeadLetters, *, consumer: str) -> None:
        self._redis = redis
        self._letters = letters
        self._keys = keys
        self.stream = ConsumerStream(redis, keys.actions, ACTIONS_GROUP, consumer)

    async def broadcast(self, action: WebSocketBroadcastAction) -> bool:
        """Tells every instance. False if that action had been told before."""
        told = await self._redis.run(
            BROADCAST,
            [self._keys.broadcast_done(action.tenant_id, action.action_id)],
            REMEMBER_ACTIONS,
            self._keys.broadcasts,
            encode_broadcast(action),
        )
        return bool(told)

    async def set_aside(self, entry: Entry) -> None:
        """Moves a push that cannot be read to the dead letters."""
        await self._letters.bury_callback(self.stream.name, entry, DeadReason.BAD_ACTION)
        await self.stream.finish([entry.id])


def encode_broadcast(action: WebSocketBroadcastAction) -> bytes:
    """Two lines: whom it concerns, and the entry."""
    targets: Sequence[str] | None = action.target_sessions
    head = orjson.dumps({"tenant_id": action.tenant_id, "target_sessions": targets})
    entry = encode_entry(
        action.message_type,
        orjson.dumps(action.message_data),
        rfc3339(now_ms()),
        metadata=orjson.dumps(action.metadata) if action.metadata else None,
    )
    return head + b"\n" + entry


def decode_broadcast(message: bytes) -> Broadcast:
    head, _, entry = message.partition(b"\n")
    fields = orjson.loads(head)
    targets = fields["target_sessions"]
    return Broadcast(
        tenant_id=TenantId(fields["tenant_id"]),
        target_sessions=None if targets is None else frozenset(targets),
        entry=entry,
    )
