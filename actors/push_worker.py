"""Pushes that other services add to the stream of actions reach their sessions."""

from collections.abc import Callable, Sequence

import structlog

from actors.counters import Counters
from actors.stream_worker import StreamWorkerActor
from common.domain.actions import PushAction, WebSocketSendAction
from common.domain.errors import ValidationFailed
from common.failpoints import failpoint
from common.queues.actions import ActionQueue
from common.queues.session_log import SessionLog
from common.queues.streams import Entry
from config.settings import CallbackSettings

log = structlog.get_logger(__name__)

DecodePush = Callable[[bytes], PushAction]


class PushWorkerActor(StreamWorkerActor):
    """Does each push once, by its `action_id`; what cannot be read becomes a dead letter.

    `decode` checks a push as the edge does, and raises ValidationFailed.
    """

    what = "pushes"

    def __init__(
        self,
        actions: ActionQueue,
        session_log: SessionLog,
        decode: DecodePush,
        counters: Counters,
        settings: CallbackSettings,
    ) -> None:
        super().__init__(
            actions.stream,
            counters,
            batch=settings.batch,
            poll_seconds=settings.poll_seconds,
            claim_idle=settings.claim_idle,
        )
        self._actions = actions
        self._session_log = session_log
        self._decode = decode

    async def handle(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            try:
                action = self._decode(entry.fields.get(b"action", b""))
            except ValidationFailed as error:
                log.warning("push.set_aside", entry_id=entry.id.decode(), errors=error.errors)
                await self.set_aside(entry)
                continue
            await self._do(action)
            failpoint("pushes.after_apply")
            await self._stream.finish([entry.id])

    async def set_aside(self, entry: Entry) -> None:
        await self._actions.set_aside(entry)

    async def _do(self, action: PushAction) -> None:
        if isinstance(action, WebSocketSendAction):
            await self._session_log.push(action)
        else:
            await self._actions.broadcast(action)
