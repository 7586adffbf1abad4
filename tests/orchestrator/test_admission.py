"""A place among the connections is taken before the first byte and given back once."""

import pytest

from common.domain.errors import Draining, Overloaded
from common.domain.ids import SessionId, SessionKey, TenantId
from orchestrator.admission import Admission
from orchestrator.app import Phase
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

SESSION = SessionKey(TenantId("acme"), SessionId("s"))


async def test_places_are_counted_and_given_back(redis_server: RedisServer, prefix: str) -> None:
    limit = {"max_connections": 2}
    async with running_service(redis_server.url, prefix, websocket=limit) as service:
        app = service.service.app
        taken = [Admission(app) for _ in range(2)]
        for each in taken:
            await each.admit(SESSION)
        refused = Admission(app)
        with pytest.raises(Overloaded):
            await refused.admit(SESSION)
        refused.release()
        assert app.sockets == 2
        for _ in range(2):
            taken[0].release()
        assert app.sockets == 1
        app.phase = Phase.DRAINING
        with pytest.raises(Draining):
            await Admission(app).admit(SESSION)
        app.phase = Phase.SERVING
        taken[1].release()
        assert app.sockets == 0
