"""Whether one more connection is taken: by WebSocket or as server-sent events."""

import asyncio

from actors.connection_manager import Listen, Listening
from common.domain.errors import Overloaded, RedisUnavailable
from common.domain.ids import SessionKey
from orchestrator.app import ANSWER_WITHIN, App, ask


class Admission:
    """One of `websocket.max_connections`, from before the first byte until the end."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._holds_slot = False

    async def admit(self, session: SessionKey) -> None:
        """Takes a slot, and makes sure that what the session's channel tells is heard.

        Raises:
            Draining, Overloaded, RedisUnavailable.
        """
        self._app.refuse_new_work()
        self._take_slot()
        listening: Listening = await ask(self._app.manager, Listen(session))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await asyncio.shield(listening.confirmed)
        except (TimeoutError, asyncio.CancelledError) as error:
            raise RedisUnavailable from error

    def _take_slot(self) -> None:
        if self._app.sockets >= self._app.settings.websocket.max_connections:
            raise Overloaded("This instance has as many connections as it takes.")
        self._app.sockets += 1
        self._holds_slot = True

    def release(self) -> None:
        """Gives the slot back; safe to repeat."""
        if self._holds_slot:
            self._holds_slot = False
            self._app.sockets -= 1
