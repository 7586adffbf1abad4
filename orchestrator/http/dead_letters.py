"""`/dead-letters/*`: what could not be used, to be looked at, tried again, or thrown away."""

from typing import Any

import orjson

from common.domain.errors import NotFound, ValidationFailed
from common.queues.dead_letters import Letter, LetterQueue
from orchestrator.app import ask
from orchestrator.http.base import ApiHandler
from orchestrator.schemas import parse_object

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


def _queue(name: str) -> LetterQueue:
    try:
        return LetterQueue(name)
    except ValueError:
        raise NotFound from None


class LettersHandler(ApiHandler):
    """`GET /dead-letters/{queue}`: the newest first."""

    async def get(self, queue: str) -> None:
        limit = self.query_number("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        letters = await self.app.dead_letters.newest(_queue(queue), limit)
        self.answer(200, orjson.dumps({"items": [_item(letter) for letter in letters]}))


class LetterHandler(ApiHandler):
    """`DELETE /dead-letters/{queue}/{id}`."""

    async def delete(self, queue: str, letter_id: str) -> None:
        await self.app.dead_letters.delete(_queue(queue), letter_id)
        self.set_status(204)
        self.finish()


class RequeueHandler(ApiHandler):
    """`POST /dead-letters/{queue}/{id}/requeue`: a message becomes a new task, a callback is added
    again; the letter goes once that is done."""

    async def post(self, queue: str, letter_id: str) -> None:
        self.app.refuse_new_work()
        if _queue(queue) is LetterQueue.CALLBACKS:
            entry_id = await self.app.dead_letters.requeue_callback(letter_id)
            self.answer(202, orjson.dumps({"id": entry_id}))
            return
        letter = await self.app.dead_letters.find(LetterQueue.EXECUTE, letter_id)
        # The letter's id is the key: asked twice, or cut off in between, there is one new task.
        action = self.app.schemas.requeued_message(_action_of(letter), f"dead-letter:{letter_id}")
        submitted = await ask(self.app.router, action)
        await self.app.dead_letters.delete(LetterQueue.EXECUTE, letter_id)
        self.answer(202, submitted.response)


def _action_of(letter: Letter) -> dict[str, Any]:
    text = letter.fields.get(b"action")
    if text is None:
        raise ValidationFailed("This dead letter holds no message.")
    return parse_object(text)


def _item(letter: Letter) -> dict[str, object]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "fields": {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in letter.fields.items()
        },
    }
