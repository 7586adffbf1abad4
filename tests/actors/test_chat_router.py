"""Actions become tasks and pushes; what one of a batch meets with concerns no other."""

import asyncio
from typing import Any

import pytest

from actors.chat_router import ChatRouterActor
from common.domain.actions import (
    ChatCancelTaskAction,
    ChatGetStatusAction,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.errors import (
    AgentNotFound,
    IdempotencyConflict,
    InternalError,
    RedisUnavailable,
    TaskAlreadyFinished,
    TaskNotFound,
)
from common.domain.ids import TaskId, TenantId
from common.domain.tasks import Submitted, TaskStatus
from common.failpoints import Injected, armed
from config.settings import AgentSettings
from tests.actors.instance import Instance, instance
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, OTHER_SESSION, SESSION, message


async def ask_all(running: Instance, *actions: Any) -> list[Any]:
    """All at once: they make one batch."""
    asked = [running.router.ask(action) for action in actions]
    return await asyncio.gather(*asked, return_exceptions=True)


def status_of(task_id: str) -> ChatGetStatusAction:
    return ChatGetStatusAction(tenant_id=ACME, task_id=TaskId(task_id))


def cancel_of(task_id: str) -> ChatCancelTaskAction:
    return ChatCancelTaskAction(tenant_id=ACME, task_id=TaskId(task_id))


async def depth(running: Instance) -> int:
    await running.stores.work.ensure_groups()
    return sum((await running.stores.work.depth()).untaken.values())


async def test_a_message_is_in_its_work_stream_once_it_is_answered(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        action = message()
        submitted = await running.router.ask(action)
        assert (submitted.task_id, submitted.replayed) == (action.task_id, False)
        assert await depth(running) == 1
        assert running.counters.messages_accepted == 1


async def test_answers_of_a_batch_go_to_those_who_asked(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        known = await running.stores.submit()
        first, second = message(), message(OTHER_SESSION)
        push = WebSocketSendAction(**vars_of(SESSION), message_data={})
        answers = await ask_all(
            running, first, status_of("unknown"), second, status_of(known), push, cancel_of(known)
        )
        assert answers[0].task_id == first.task_id
        assert isinstance(answers[1], TaskNotFound)
        assert answers[2].task_id == second.task_id
        assert answers[3].task_id == known
        assert answers[4] == push.action_id
        assert (answers[5].task_id, answers[5].status) == (known, TaskStatus.CANCELLED)


async def test_a_refused_message_of_a_batch_shifts_no_answer(
    redis_server: RedisServer, prefix: str
) -> None:
    agents = {
        "echo": AgentSettings(),
        "private": AgentSettings(tenants=(TenantId("globex"),)),
    }
    async with instance(redis_server.url, prefix, agents=agents) as running:
        taken = [
            message(idempotency_key="key", fingerprint="a"),
            message(agent_id="private"),
            message(idempotency_key="key", fingerprint="b"),
            message(idempotency_key="key", fingerprint="a"),
            message(agent_id="nobody"),
            message(),
        ]
        answers = await ask_all(running, *taken)
        assert [type(answer) for answer in answers] == [
            Submitted,
            AgentNotFound,
            IdempotencyConflict,
            Submitted,
            AgentNotFound,
            Submitted,
        ]
        assert (answers[3].replayed, answers[3].task_id) == (True, taken[0].task_id)
        assert answers[5].task_id == taken[5].task_id
        assert await depth(running) == 2
        assert (running.counters.messages_accepted, running.counters.messages_replayed) == (2, 1)
        assert running.supervised() == []


async def test_a_push_and_a_broadcast_are_answered_with_their_action_id(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        _, transport = await running.connect()
        push = WebSocketSendAction(**vars_of(SESSION), message_data={"a": 1}, message_type="note")
        broadcast = WebSocketBroadcastAction(tenant_id=ACME, message_data={"b": 2})
        assert await ask_all(running, push, broadcast) == [push.action_id, broadcast.action_id]
        assert (await transport.frame("note"))["data"] == {"a": 1}
        assert (await transport.frame("broadcast"))["data"] == {"b": 2}


async def test_a_finished_task_cannot_be_cancelled(redis_server: RedisServer, prefix: str) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit()
        await running.stores.watch.fail(task_id, "test", "as told")
        with pytest.raises(TaskAlreadyFinished):
            await running.router.ask(cancel_of(task_id))


async def test_without_redis_every_action_of_a_batch_is_refused_and_the_actor_goes_on(
    prefix: str,
) -> None:
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            await running.stores.submit()
            server.stop()
            answers = await ask_all(running, message(), message(), status_of("t"), cancel_of("t"))
            assert [type(answer) for answer in answers] == [RedisUnavailable] * 4
            server.start()
            await asyncio.sleep(0.3)  # how long Redis counts as away once it was found so
            assert isinstance(await running.router.ask(message()), Submitted)
            assert running.supervised() == []


async def test_a_message_that_breaks_us_fails_alone_and_is_seen_by_the_supervisor(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        poisoned = message(metadata={"not JSON": object()})
        answers = await ask_all(running, message(), poisoned, status_of("unknown"), message())
        kinds = [type(answer) for answer in answers]
        assert kinds == [Submitted, InternalError, TaskNotFound, Submitted]
        assert await depth(running) == 2
        (failure,) = running.supervised()
        assert failure["outcome"] == "contained"
        assert failure["message_type"] == "ChatSendMessageAction"
        assert failure["action_id"] == poisoned.action_id
        assert running.router.restarts == 0
        assert running.supervisor.totals().failures == 1


async def test_a_question_that_breaks_us_fails_alone(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        task_id = await running.stores.submit()
        with armed("chat_router.before_answer=raise:1"):
            answers = await ask_all(running, status_of(task_id), status_of(task_id), message())
        assert [type(answer).__name__ for answer in answers] == [
            "InternalError",
            "Task",
            "Submitted",
        ]
        assert [each["outcome"] for each in running.supervised()] == ["contained"]


async def test_messages_that_were_taken_before_a_failure_are_not_taken_twice(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        with armed("chat_router.after_submit=raise:1"):
            answers = await ask_all(running, message(), message())
        assert [type(answer) for answer in answers] == [Submitted, Submitted]
        assert len(await running.stores.events()) == 2
        assert await depth(running) == 2


async def test_a_message_is_answered_though_it_could_not_be_handed_on(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        with armed("tasks.after_take=raise:1"):
            assert isinstance(await running.router.ask(message()), Submitted)
        assert [each["outcome"] for each in running.supervised()] == ["contained"]


async def test_a_delivery_that_redis_refuses_is_postponed(prefix: str) -> None:
    with RedisServer() as server:
        async with instance(server.url, prefix) as running:
            action = message()
            submitted = await running.stores.submit_action(action)
            server.stop()
            router = running.router._cell.actor
            assert isinstance(router, ChatRouterActor)
            assert isinstance(submitted, Submitted)
            await router._set_out([(action, submitted)])
            assert running.supervised() == []


async def test_a_router_that_fails_is_restarted_and_answers_the_next(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        with armed("chat_router.on_batch=raise:1"):
            answers = await ask_all(running, message(), message())
        assert [type(answer) for answer in answers] == [Injected, Injected]
        assert isinstance(await running.router.ask(message()), Submitted)
        assert running.router.restarts == 1
        assert [each["outcome"] for each in running.supervised()] == ["restart"]


def vars_of(session: Any) -> dict[str, Any]:
    return {"tenant_id": session.tenant_id, "session_id": session.session_id}
