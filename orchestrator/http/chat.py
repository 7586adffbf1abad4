"""`/api/chat/*`: send a message, ask how it is doing, stop it (contract, section 3)."""

import re
from dataclasses import replace

from common.domain.answers import cancel_body, status_body
from common.domain.errors import ValidationFailed
from common.domain.tasks import CancelOutcome, Submitted, Task, TaskStatus
from common.failpoints import failpoint
from orchestrator.app import ask
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler
from orchestrator.schemas import check_key

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class SendHandler(ApiHandler):
    """`POST /api/chat/send`: 202 once the task is safely in Redis."""

    access = Access.CHAT

    async def post(self) -> None:
        self.app.refuse_new_work()
        action = self.permit(self.app.schemas.send_message(self.json_body(), self._key()))
        action = replace(action, traceparent=self._traceparent())
        submitted: Submitted = await ask(self.app.router, action)
        failpoint("http.before_202")
        if submitted.replayed:
            self.set_header("Idempotent-Replayed", "true")
        self.answer(202, submitted.response)

    def _traceparent(self) -> str | None:
        """The request's place in a trace; one that is not well-formed is none (Trace Context)."""
        given = self.request.headers.get("traceparent", "")
        return given if TRACEPARENT.fullmatch(given) else None

    def _key(self) -> str | None:
        given = self.request.headers.get_list("Idempotency-Key")
        if len(given) > 1:
            raise ValidationFailed(errors={"Idempotency-Key": ["Given more than once."]})
        return check_key(given[0]) if given else None


class StatusHandler(ApiHandler):
    """`POST /api/chat/status`."""

    access = Access.CHAT

    async def post(self) -> None:
        action = self.permit(self.app.schemas.get_status(self.json_body()))
        task: Task = await ask(self.app.router, action)
        self.answer(200, status_body(task))


class CancelHandler(ApiHandler):
    """`POST /api/chat/cancel`: 200 where it ended at once, 202 where a worker has to stop."""

    access = Access.CHAT

    async def post(self) -> None:
        action = self.permit(self.app.schemas.cancel_task(self.json_body()))
        outcome: CancelOutcome = await ask(self.app.router, action)
        status = 200 if outcome.status is TaskStatus.CANCELLED else 202
        self.answer(status, cancel_body(outcome))
