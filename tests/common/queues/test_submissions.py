"""Messages taken in: made into tasks, once for a key, and put in line."""

import asyncio
from typing import Any

import orjson

from common.domain.actions import IfBusy
from common.domain.errors import (
    IdempotencyConflict,
    InternalError,
    SessionBusy,
)
from common.domain.tasks import Submitted
from tests.support.redis_server import RedisServer
from tests.support.stores import OTHER_SESSION, SESSION, message, stores


def keyed(body: str, key: str = "key", **fields: Any) -> Any:
    """A message with an Idempotency-Key; `body` stands for all that it says."""
    return message(message=body, idempotency_key=key, fingerprint=f"of {body}", **fields)


# The way in.


async def test_a_message_becomes_a_queued_task_and_an_event(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        action = message(metadata={"m": []}, created_at=5)
        submitted = await each.submit_action(action)
        assert isinstance(submitted, Submitted)
        assert (submitted.task_id, submitted.replayed) == (action.task_id, False)
        assert orjson.loads(submitted.response)["task_id"] == action.task_id
        (event,) = await each.events()
        assert (event["type"], event["task_id"]) == ("user_message", action.task_id)
        assert event["metadata"] == {"m": []}
        task = await each.task(action.task_id)
        assert (task.status, task.attempt, task.agent_id) == ("queued", None, "echo")
        assert (task.created_at, task.started_at, task.finished_at) == (5, None, None)
        assert await each.is_due(action.task_id)


async def test_many_messages_are_taken_in_one_go(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        actions = [message(SESSION if i % 2 else OTHER_SESSION) for i in range(10)]
        outcomes = await each.submissions.submit(actions)
        assert [outcome.task_id for outcome in outcomes if isinstance(outcome, Submitted)] == [
            action.task_id for action in actions
        ]
        assert len(await each.events()) == len(await each.events(OTHER_SESSION)) == 5
        assert await each.submissions.submit([]) == []


async def test_the_same_key_and_body_answer_the_first_response_again(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        first = await each.submit_action(keyed("a"))
        again = await each.submit_action(keyed("a"))
        assert isinstance(first, Submitted)
        assert isinstance(again, Submitted)
        assert (again.task_id, again.response, again.replayed) == (
            *(first.task_id, first.response, True),
        )
        assert len(await each.events()) == 1
        record = each.keys.idempotency(SESSION, "key")
        assert 86_000 < await each.ttl(record) <= 86_400


async def test_the_same_key_with_another_body_is_a_conflict(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.submit_action(keyed("a"))
        assert isinstance(await each.submit_action(keyed("b")), IdempotencyConflict)
        assert len(await each.events()) == 1


async def test_a_key_is_its_sessions_own(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.submit_action(keyed("a"))
        other = await each.submit_action(keyed("b", session=OTHER_SESSION))
        assert isinstance(other, Submitted)
        assert not other.replayed


async def test_of_simultaneous_messages_with_one_key_one_is_taken(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as one, stores(redis_server.url, prefix) as two:
        actions = [keyed("a") for _ in range(20)]
        outcomes = await asyncio.gather(
            *(each.submissions.submit(actions[i::4]) for i, each in enumerate((one, two, one, two)))
        )
        found = [o for some in outcomes for o in some if isinstance(o, Submitted)]
        assert len(found) == 20
        assert len({outcome.task_id for outcome in found}) == 1
        assert [outcome.replayed for outcome in found].count(False) == 1
        for action in actions:  # of those that made no task nothing is left
            made = action.task_id == found[0].task_id
            assert await one.exists(one.keys.task_session(action.task_id)) == made
            assert await one.is_due(action.task_id) == made


async def test_the_same_message_taken_twice_is_one(redis_server: RedisServer, prefix: str) -> None:
    """As after a lost reply: the caller cannot know, and submits the very same action again."""
    async with stores(redis_server.url, prefix) as each:
        for action in (message(), keyed("a")):
            first = await each.submit_action(action)
            again = await each.submit_action(action)
            assert isinstance(first, Submitted)
            assert isinstance(again, Submitted)
            assert first.task_id == again.task_id
            assert await each.exists(each.keys.task_session(action.task_id))
        assert len(await each.events()) == 2


async def test_a_session_that_cannot_take_a_message_spoils_no_other(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        await each.redis.call("SET", each.keys.session_meta(OTHER_SESSION), "no hash")
        outcomes = await each.submissions.submit([message(), message(OTHER_SESSION), message()])
        assert [type(outcome) for outcome in outcomes] == [Submitted, InternalError, Submitted]


async def test_a_busy_session_may_be_left_alone(redis_server: RedisServer, prefix: str) -> None:
    async with stores(redis_server.url, prefix) as each:
        first = await each.submit_action(message(if_busy=IfBusy.REJECT))
        assert isinstance(first, Submitted)
        refused = message(if_busy=IfBusy.REJECT)
        assert isinstance(await each.submit_action(refused), SessionBusy)
        assert not await each.exists(each.keys.task_session(refused.task_id))
        await each.report(first.task_id, (1, 1, "completed", {}))
        assert isinstance(await each.submit_action(message(if_busy=IfBusy.REJECT)), Submitted)


async def test_a_message_may_interrupt_those_before_it(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        running = await each.submit_and_deliver()
        await each.report(running, (1, 1, "started", {}))
        queued = await each.submit_and_deliver(if_busy=IfBusy.ENQUEUE)
        newest = await each.submit_and_deliver(if_busy=IfBusy.INTERRUPT)
        statuses = [(await each.task(task_id)).status for task_id in (running, queued, newest)]
        assert statuses == ["cancelling", "cancelled", "queued"]
        assert await each.exists(each.keys.cancel(running))
        assert len(await each.work_entries()) == 1
        await each.report(running, (1, 2, "cancelled", {}))
        assert [entry["action_id"] for entry in await each.work_entries()] == [running, newest]


# Delivery.


async def test_a_task_is_delivered_once_with_its_deadline(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        action = message(timeout=5.0)
        submitted = await each.submit_action(action)
        assert isinstance(submitted, Submitted)
        await asyncio.gather(*(each.submissions.set_out([(action, submitted)]) for _ in range(5)))
        (entry,) = await each.work_entries()
        assert entry["action_id"] == action.task_id
        deadline = await each.redis.call(
            "HGET", each.keys.task(SESSION, action.task_id), "deadline"
        )
        assert int(deadline) == entry["deadline"]


async def test_a_delivery_that_a_crash_left_undone_is_done_by_the_next_look(
    redis_server: RedisServer, prefix: str
) -> None:
    async with stores(redis_server.url, prefix) as each:
        task_id = await each.submit()
        for _ in range(2):
            assert await each.look(task_id) is None
        (entry,) = await each.work_entries()
        assert entry["action_id"] == task_id
