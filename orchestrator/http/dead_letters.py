"""`/dead-letters/*`: what could not be used, to be looked at, tried again, or thrown away.

An operator of one tenant finds that tenant's letters and no others: what is another's is not found,
nor is what nobody can say whose it is.
"""

from dataclasses import replace
from typing import Any

import orjson

from common.domain.callbacks import DeadReason
from common.domain.errors import NotFound, OrchestratorError, ValidationFailed
from common.domain.ids import SessionId, TenantId
from common.queues.dead_letters import Letter, LetterQueue
from orchestrator.app import ask
from orchestrator.auth.caller import Access
from orchestrator.auth.permission import allowed_priority
from orchestrator.http.base import ApiHandler
from orchestrator.schemas import MAX_VALUES, parse_object

ADDRESS = ("tenant_id", "session_id")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
OWN_VALUES = 100  # more than the orchestrator adds to a message


def _queue(name: str) -> LetterQueue:
    try:
        return LetterQueue(name)
    except ValueError:
        raise NotFound from None


class LetterReader(ApiHandler):
    """What the handlers of dead letters share: they see what the caller may see."""

    def sees(self, letter: Letter) -> bool:
        return self.caller.sees(*_address_of(letter))

    async def find(self, queue: LetterQueue, letter_id: str) -> Letter:
        """One letter.

        Raises:
            NotFound: also for one that is not the caller's to see.
        """
        letter = await self.app.dead_letters.find(queue, letter_id)
        if not self.sees(letter):
            raise NotFound("There is no such dead letter.")
        return letter


class LettersHandler(LetterReader):
    """`GET /dead-letters/{queue}`: the newest first."""

    access = Access.ADMIN

    async def get(self, queue: str) -> None:
        limit = self.query_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        letters = await self.app.dead_letters.newest(_queue(queue), limit, self.sees)
        self.answer(200, orjson.dumps({"items": [_item(letter) for letter in letters]}))


class LetterHandler(LetterReader):
    """`DELETE /dead-letters/{queue}/{id}`."""

    access = Access.ADMIN

    async def delete(self, queue: str, letter_id: str) -> None:
        letter = await self.find(_queue(queue), letter_id)
        await self.app.dead_letters.delete(_queue(queue), letter.id)
        self.set_status(204)
        self.finish()


class RequeueHandler(LetterReader):
    """`POST /dead-letters/{queue}/{id}/requeue`: a message becomes a new task, a callback is added
    again; the letter goes once that is done."""

    access = Access.ADMIN

    async def post(self, queue: str, letter_id: str) -> None:
        self.app.refuse_new_work()
        letter = await self.find(_queue(queue), letter_id)
        if _queue(queue) is LetterQueue.CALLBACKS:
            entry_id = await self.app.dead_letters.requeue_callback(letter.id)
            self.answer(202, orjson.dumps({"id": entry_id}))
            return
        # The letter's id is the key: asked twice, or cut off in between, there is one new task.
        action = self.app.schemas.requeued_message(_action_of(letter), f"dead-letter:{letter.id}")
        # It stays the message of the user who sent it, whoever tries it again.
        action = replace(action, priority=allowed_priority(action, self.app.settings))
        submitted = await ask(self.app.router, action)
        await self.app.dead_letters.delete(LetterQueue.EXECUTE, letter.id)
        self.answer(202, submitted.response)


def _action_of(letter: Letter) -> dict[str, Any]:
    text = letter.fields.get(b"action")
    if text is None:
        raise ValidationFailed("This dead letter holds no message.")
    return parse_object(text, most=MAX_VALUES + OWN_VALUES)


def _address_of(letter: Letter) -> tuple[TenantId | None, SessionId | None]:
    """Whose a letter is: what it says itself, unless it was found to be another's."""
    if letter.reason == DeadReason.MISMATCH:
        return None, None
    if b"tenant_id" in letter.fields:  # a callback
        fields = {name.decode("latin-1"): value for name, value in letter.fields.items()}
        said = {name: fields.get(name, b"").decode("latin-1") for name in ADDRESS}
    else:
        said = _action_within(letter)
    tenant_id, session_id = (said.get(name) for name in ADDRESS)
    return (
        TenantId(tenant_id) if isinstance(tenant_id, str) else None,
        SessionId(session_id) if isinstance(session_id, str) else None,
    )


def _action_within(letter: Letter) -> dict[str, Any]:
    try:
        return _action_of(letter)
    except OrchestratorError:
        return {}


def _item(letter: Letter) -> dict[str, object]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "fields": {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in letter.fields.items()
        },
    }
