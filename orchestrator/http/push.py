"""`/api/ws/*`: back-end callers push into a session, or to all of a tenant (section 3)."""

import orjson

from orchestrator.app import ask
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler


class PushHandler(ApiHandler):
    """`POST /api/ws/send`: an event of one session, kept in its log."""

    access = Access.PUSH

    async def post(self) -> None:
        self.app.refuse_new_work()
        action = self.permit(self.app.schemas.push(self.json_body()))
        action_id = await ask(self.app.router, action)
        self.answer(202, orjson.dumps({"action_id": action_id}))


class BroadcastHandler(ApiHandler):
    """`POST /api/ws/broadcast`: told to those who are connected, kept nowhere."""

    access = Access.PUSH

    async def post(self) -> None:
        self.app.refuse_new_work()
        action = self.permit(self.app.schemas.broadcast(self.json_body()))
        action_id = await ask(self.app.router, action)
        self.answer(202, orjson.dumps({"action_id": action_id}))
