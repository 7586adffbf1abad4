"""Whether one more connection is taken: by WebSocket or as server-sent events.

What costs least is asked first: whether its address is listened to at all, then (the handlers)
whether the request makes sense and who is calling, then whether this instance has room, and only
then, in one script of Redis, whether its tenant and its address may have one more anywhere.
"""

import asyncio

from tornado import web
from tornado.httputil import HTTPServerRequest

from actors.connection_manager import Listen, Listening
from actors.doorkeeper import Enter, Settle
from common.domain.errors import BadRequest, OrchestratorError, Overloaded, RedisUnavailable
from common.domain.ids import SessionKey, TenantId
from common.queues.connections import Place
from orchestrator.app import ANSWER_WITHIN, App, ask
from orchestrator.auth.permission import tier_of

BAD_HANDSHAKE = frozenset({400, 401, 403, 404})


class Admission:
    """All that a connection occupies, from before the first byte until the end."""

    def __init__(self, app: App, request: HTTPServerRequest) -> None:
        self._app = app
        self._address = app.addresses.of(str(request.remote_ip), request.headers)
        self._holds_slot = False
        self._place: Place | None = None

    def check_address(self) -> None:
        """Raises RateLimited where too many bad handshakes came from; asks nobody."""
        if self._address is not None:
            self._app.handshakes.check(self._address)

    def count_refusal(self, error: OrchestratorError | web.HTTPError) -> None:
        """An upgrade was refused: where that is the caller's mistake, its address is noted."""
        refusal = error if isinstance(error, OrchestratorError) else BadRequest()
        self._app.counters.refused_upgrades[refusal.code] += 1
        if self._address is not None and refusal.http_status in BAD_HANDSHAKE:
            self._app.handshakes.count(self._address)
            self._app.doorkeeper.notify(Settle())

    async def admit(self, session: SessionKey) -> None:
        """Takes a slot and a place, and makes sure that what the session's channel tells is heard.

        Raises:
            Draining, Forbidden, Overloaded, RateLimited, RedisUnavailable: within three seconds.
        """
        deadline = asyncio.get_running_loop().time() + ANSWER_WITHIN
        self._app.refuse_new_work()
        self.check_address()
        self._take_slot()
        await self._take_place(session.tenant_id)
        listening: Listening = await ask(self._app.manager, Listen(session))
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(listening.confirmed)
        except (TimeoutError, asyncio.CancelledError) as error:
            raise RedisUnavailable from error

    def _take_slot(self) -> None:
        if self._app.sockets >= self._app.settings.websocket.max_connections:
            raise Overloaded("This instance has as many connections as it takes.")
        self._app.sockets += 1
        self._holds_slot = True

    async def _take_place(self, tenant_id: TenantId) -> None:
        settings = self._app.settings
        place = Place(
            tenant_id=tenant_id,
            of_tenant=tier_of(tenant_id, settings).max_connections,
            address=self._address,
            of_address=settings.websocket.max_connections_per_address,
        )
        if place.is_counted:
            self._place = place
            await ask(self._app.doorkeeper, Enter(place))

    def release(self) -> None:
        """Gives back whatever was taken; safe to repeat."""
        if self._holds_slot:
            self._holds_slot = False
            self._app.sockets -= 1
        if self._place is not None:
            self._app.connections.leave(self._place)
            self._place = None
            self._app.doorkeeper.notify(Settle())
