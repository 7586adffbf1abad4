"""Section 5: the work streams, as an execution service sees them (sentences 5.1 to 5.11)."""

import time

import orjson
import pytest

from tests.contract.talk import PRIORITIES, Talk, talk, until, until_there_is_a_group
from tests.support.configuration import settings_of
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

GROUP = "agent-execution"


async def test_5_1_every_key_begins_with_the_prefix_and_those_named_have_no_braces(
    prefix: str,
) -> None:
    assert settings_of("{}").redis.key_prefix == "orchestrator:"
    with RedisServer() as server:  # of its own, so that all its keys are ours
        async with talk(server, prefix) as each, each.service.connect("acme/s-1"):
            task = await each.started()
            await each.executor.stream_answer(task, "x")
            await each.sent(if_busy="parallel", priority="low", key="an-idempotency-key")
            await each.cancel(task.task_id)
            await each.executor.report(task, "nonsense")
            await each.executor.push({"action_type": "nonsense"})
            await each.executor.push(
                {
                    "action_id": "7a0f1d5e-0a59-4f4c-8a5e-7b1f1c9d2e11",
                    "tenant_id": "acme",
                    "action_type": "websocket.send_message",
                    "session_id": "s-1",
                    "message_data": {},
                }
            )
            await until(lambda: each.redis.exists(f"{prefix}dead:callbacks"))
            await each.handled(task)
            keys = {key.decode() for key in await each.redis.keys("*")}
        assert all(key.startswith(prefix) for key in keys)
        assert keys >= {
            *(f"{prefix}execute:{priority}" for priority in PRIORITIES),
            *(f"{prefix}attempt:{task.task_id}", f"{prefix}cancel:{task.task_id}"),
            *(f"{prefix}dead:callbacks", f"{prefix}actions"),
        }


async def test_5_3_the_orchestrator_makes_the_group_of_each_stream_from_id_0(
    redis_server: RedisServer, prefix: str
) -> None:
    async with FakeExecutor(redis_server.url, prefix) as executor:
        added = [
            await executor.redis.xadd(executor.stream(priority), {"task_id": "t", "action": "{}"})
            for priority in PRIORITIES
        ]
        async with running_service(redis_server.url, prefix):
            for priority, entry_id in zip(PRIORITIES, added, strict=True):
                stream = executor.stream(priority)
                await until_there_is_a_group(executor, priority)
                names = [each["name"] for each in await executor.redis.xinfo_groups(stream)]
                assert names == [GROUP.encode()]
                ((_, entries),) = await executor.redis.xreadgroup(GROUP, "w", {stream: ">"})
                assert [id_ for id_, _ in entries] == [entry_id]


async def test_5_3_a_group_that_was_lost_is_made_again(prefix: str) -> None:
    with RedisServer() as server:
        async with talk(server, prefix) as each:
            await each.redis.flushall()
            task_id = await each.sent()
            assert (await each.executor.take()).task_id == task_id


async def test_5_4_an_entry_holds_the_action_and_what_a_worker_has_to_know(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"max_attempts": 5, "visibility_timeout": 7}
    async with talk(redis_server, prefix, execution=execution) as each:
        given = {
            "message": "hé\u2028",
            "user_id": "u-1",
            "timeout": 12,
            "priority": "high",
            "user_info": {"a": []},
            "context": {"n": 12345678901234567890},
            "metadata": {"m": {}},
            "if_busy": "parallel",
            "agent_id": "agent-1",
        }
        before = await each.now_ms()
        task_id = await each.sent("acme/s-9", **given)
        after = await each.now_ms()
        ((_, fields),) = await each.redis.xrange(each.executor.stream("high"))
        assert fields.keys() == {b"task_id", b"action"}
        assert fields[b"task_id"].decode() == task_id
        action = orjson.loads(fields[b"action"])
        assert action.items() >= given.items()
        assert (
            action.items()
            >= {
                "action_id": task_id,
                "action_type": "chat.send_message",
                "tenant_id": "acme",
                "session_id": "s-9",
                "message_type": "text",
                "max_attempts": 5,
                "visibility_timeout_ms": 7000,
            }.items()
        )
        assert action["created_at"].endswith("Z")
        assert isinstance(action["deadline"], int)
        assert before <= action["deadline"] - 12_000 <= after
        assert isinstance(action["callback_stream"], str)


async def test_5_4_what_a_message_leaves_out_has_its_default(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        action = (await each.taken()).action
        assert (
            action.items()
            >= {
                "user_id": None,
                "user_info": {},
                "context": {},
                "metadata": {},
                "timeout": 300,
                "priority": "normal",
                "max_attempts": 3,
                "visibility_timeout_ms": 60_000,
            }.items()
        )


async def test_5_4_a_traceparent_is_passed_on_where_there_is_one(
    redis_server: RedisServer, prefix: str
) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"tenant_id": "acme", "session_id": "s-1", "agent_id": "echo", "message": "hello"}
    async with talk(redis_server, prefix) as each:
        for header, expected in ((given, given), ("not one", None)):
            parallel = {**body, "if_busy": "parallel"}
            await each.service.post("/api/chat/send", parallel, traceparent=header)
            assert (await each.executor.take()).action.get("traceparent") == expected


async def test_5_5_each_priority_has_its_stream(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        sent = {
            priority: await each.sent(f"acme/{priority}", priority=priority)
            for priority in reversed(PRIORITIES)
        }
        taken = [await each.executor.take() for _ in PRIORITIES]
        assert [task.task_id for task in taken] == [sent[priority] for priority in PRIORITIES]
        assert [task.stream for task in taken] == list(map(each.executor.stream, PRIORITIES))


async def left_behind(each: Talk, attempts: int) -> TakenTask:
    """A task that runs, whose attempts were counted so often."""
    task = await each.started(if_busy="parallel")
    for _ in range(attempts - 1):
        await each.executor.count_attempt(task.task_id)
    return task


async def refresh(each: Talk, task: TakenTask) -> None:
    await each.redis.xclaim(
        task.stream, GROUP, each.executor.consumer, 0, [task.entry_id], justid=True
    )


@pytest.mark.parametrize("attempts", [2, 3])
async def test_5_11_a_task_whose_attempts_are_used_up_fails_and_its_entry_is_moved(
    redis_server: RedisServer, prefix: str, attempts: int
) -> None:
    """Above the most at once (3), at it once the entry is idle (2)."""
    execution = {"max_attempts": 2, "visibility_timeout": 0.5 if attempts == 2 else 60}
    async with talk(redis_server, prefix, execution=execution) as each:
        task = await left_behind(each, attempts)
        status = await each.service.task_ended(task.task_id)
        assert status["status"] == "failed"
        assert status["error"]["error_type"] == "max_attempts"
        (letter,) = await until(lambda: each.executor.dead_letters("execute"))
        assert letter[b"reason"] == b"max_attempts"
        assert letter[b"stream"] == task.stream.encode()
        assert letter[b"task_id"] == task.task_id.encode()
        assert orjson.loads(letter[b"action"]) == task.action
        await until(lambda: each.is_gone(task))
        (end,) = await each.ends(task)
        assert end["data"]["error_type"] == "max_attempts"


@pytest.mark.parametrize(("attempts", "is_idle"), [(1, True), (2, False)])
async def test_5_11_an_attempt_that_may_still_be_made_or_runs_is_left_alone(
    redis_server: RedisServer, prefix: str, attempts: int, is_idle: bool
) -> None:
    visible = 0.2 if is_idle else 3.0  # seconds; between two refreshes there are far fewer
    execution = {"max_attempts": 2, "visibility_timeout": visible}
    async with talk(redis_server, prefix, execution=execution) as each:
        task = await left_behind(each, attempts)
        other = await left_behind(each, 3)  # that one is found, so the entries were looked at
        began = time.monotonic()

        async def was_looked_at_twice() -> bool:
            if not is_idle:
                await refresh(each, task)
            ended = (await each.service.status(other.task_id))["status"] == "failed"
            return ended and time.monotonic() - began > max(2, visible + 0.5)

        await until(was_looked_at_twice)
        assert (await each.service.status(task.task_id))["status"] == "running"
        assert await each.is_pending(task)
