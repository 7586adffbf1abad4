"""Section 5: a task that failed and may be tried again (`retryable: true`, sentence 5.19)."""

import itertools
from collections.abc import Mapping
from typing import Any

import orjson

from tests.contract.talk import Talk, talk, talk_to_two, until
from tests.support.fake_executor import TakenTask
from tests.support.processes import worker_process
from tests.support.redis_server import RedisServer
from tests.support.service import STARTED_WITHIN

GROUP = "agent-execution"
FAILURE = {"error": {"type": "overloaded", "message": "Come back later."}, "retryable": True}


async def fail(each: Talk, task: TakenTask, *, finish: bool = True) -> None:
    """The attempt asks for another, and its worker removes its entry."""
    await each.executor.report(task, "failed", FAILURE)
    if finish:
        await each.executor.finish(task)


def entered(task: TakenTask) -> int:
    return int(task.entry_id.split(b"-")[0])


async def test_5_19_the_same_action_comes_again_with_the_same_deadline_after_a_backoff(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"retry_backoff": 0.2, "max_attempts": 4}
    async with talk(redis_server, prefix, execution=execution) as each:
        tasks = [await each.started()]
        failed_at = []
        for _ in range(3):
            failed_at.append(await each.now_ms())
            await fail(each, tasks[-1])
            await each.handled(tasks[-1])
            status = await each.service.status(tasks[-1].task_id)
            assert (status["status"], status["finished_at"]) == ("queued", None)
            tasks.append(await each.executor.take())
            await each.executor.report(tasks[-1], "started")
        assert [task.attempt for task in tasks] == [1, 2, 3, 4]
        assert all(task.action == tasks[0].action for task in tasks)
        assert len({task.entry_id for task in tasks}) == 4
        waited = [entered(task) - since for task, since in zip(tasks[1:], failed_at, strict=True)]
        for backoff, actual in zip((200, 400, 800), waited, strict=True):
            assert actual >= backoff, waited
        await each.executor.complete(tasks[-1])
        assert (await each.service.task_ended(tasks[0].task_id))["status"] == "completed"
        statuses = [data["status"] for type_, data in await each.told() if type_ == "task_update"]
        assert statuses == ["running", *("queued", "running") * 3]


async def test_5_19_the_backoff_never_exceeds_30_seconds(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"retry_backoff": 30, "max_attempts": 5}
    async with talk(redis_server, prefix, execution=execution) as each:
        task = await each.started(timeout=600)
        await each.executor.report(task, "started", attempt=4, seq=1)
        before = await each.now_ms()
        await each.executor.report(task, "failed", FAILURE, attempt=4, seq=2)
        await each.handled(task)
        (record,) = [key async for key in each.redis.scan_iter(f"{prefix}task:*{task.task_id}")]
        due = int(await each.redis.hget(record, "retry_at"))
        assert before + 30_000 <= due <= await each.now_ms() + 30_000


async def test_5_19_an_old_entry_that_its_worker_left_is_removed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"retry_backoff": 0.1}) as each:
        task = await each.started()
        await fail(each, task, finish=False)  # it died before it could ack
        again = await each.executor.take()
        assert again.entry_id != task.entry_id
        await until(lambda: each.is_gone(task))
        assert await each.is_pending(again)
        pending = await each.redis.xpending(task.stream, GROUP)
        assert pending["pending"] == 1


async def test_5_19_attempts_that_are_used_up_fail_the_task(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"retry_backoff": 0.05, "max_attempts": 2}
    async with talk(redis_server, prefix, execution=execution) as each:
        task = await each.started()
        await each.executor.report(task, "delta", {"text": "first"})
        await fail(each, task)
        again = await each.executor.take()
        await each.executor.stream_answer(again, "second")
        await fail(each, again)
        status = await each.service.task_ended(task.task_id)
        assert (status["status"], status["attempt"]) == ("failed", 2)
        assert status["error"]["error_type"] == "max_attempts"
        assert status["error"]["message"] == "Come back later."
        assert status["result"] == {"response": "second", "partial": True}
        (end,) = await each.ends(task)
        assert end["data"].items() >= {"code": "task_failed", "error_type": "max_attempts"}.items()
        assert await each.executor.dead_letters("execute") == []  # its worker had removed it
        assert await each.redis.xlen(task.stream) == 0


async def test_5_19_a_worn_out_entry_that_was_left_is_moved_to_the_dead_letters(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"max_attempts": 1, "visibility_timeout": 0.3}
    async with talk(redis_server, prefix, execution=execution) as each:
        task = await each.started()
        await fail(each, task, finish=False)
        assert (await each.service.task_ended(task.task_id))["status"] == "failed"
        (letter,) = await until(lambda: each.executor.dead_letters("execute"))
        assert letter[b"task_id"].decode() == task.task_id
        assert letter[b"reason"] == b"max_attempts"
        await until(lambda: each.is_gone(task))
        assert len(await each.ends(task)) == 1


async def test_5_19_a_task_that_waits_for_its_next_attempt_is_cancelled_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"retry_backoff": 2}) as each:
        task = await each.started()
        await fail(each, task)
        await each.handled(task)
        assert await each.cancel(task.task_id) == (200, "cancelled")
        later = await each.started(message="ends when the backoff is over", timeout=3)
        assert (await each.service.task_ended(later.task_id))["status"] == "timeout"
        assert await each.redis.xlen(task.stream) == 1  # the later one's; it came never again
        assert len(await each.ends(task)) == 1


async def test_5_19_a_deadline_that_passes_during_the_backoff_ends_the_task(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"retry_backoff": 20}) as each:
        task = await each.started(timeout=1)
        await fail(each, task)
        assert (await each.service.task_ended(task.task_id))["status"] == "timeout"


async def test_5_19_a_failure_while_cancelling_is_the_end(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        assert await each.cancel(task.task_id) == (202, "cancelling")
        await fail(each, task)
        assert (await each.service.task_ended(task.task_id))["status"] == "cancelled"
        assert len(await each.ends(task)) == 1


async def test_5_19_what_the_failed_attempt_says_afterwards_is_fenced_off(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"retry_backoff": 0.05}) as each:
        task = await each.started()
        await fail(each, task)
        await each.executor.report(task, "delta", {"text": "stale"})
        await each.executor.report(task, "completed", {"response": "stale"})
        await each.handled(task)
        assert (await each.service.status(task.task_id))["status"] == "queued"
        again = await each.executor.take()
        await each.executor.report(again, "started")
        await each.executor.report(task, "delta", {"text": "staler"}, seq=9)
        await each.executor.complete(again, "fresh")
        status = await each.service.task_ended(task.task_id)
        assert status["result"]["response"] == "fresh"
        assert not [data for type_, data in await each.told() if type_ == "agent_delta"]


async def test_5_19_a_retry_told_twice_to_two_instances_is_one_retry(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"retry_backoff": 0.1}
    async with talk_to_two(redis_server, prefix, execution=execution) as (each, _):
        task = await each.started()
        for _ in range(10):
            await each.executor.report(task, "failed", FAILURE, seq=2)
        await each.executor.finish(task)
        again = await each.executor.take()
        await each.executor.report(task, "failed", FAILURE, seq=2)
        await each.executor.complete(again)
        assert (await each.service.task_ended(task.task_id))["status"] == "completed"
        assert await each.redis.xlen(task.stream) == 0
        updates = [data["status"] for type_, data in await each.told() if type_ == "task_update"]
        assert updates.count("queued") == 1


async def test_5_19_a_session_goes_on_only_after_the_last_attempt(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, execution={"retry_backoff": 0.1}) as each:
        task = await each.started()
        next_id = await each.sent(message="waits for the first")
        await fail(each, task)
        again = await each.executor.take()
        assert again.task_id == task.task_id
        assert (await each.service.status(next_id))["status"] == "queued"
        await each.executor.complete(again)
        assert (await each.executor.take()).task_id == next_id


async def test_5_8_and_5_19_a_real_worker_is_given_its_task_again_until_attempts_are_used_up(
    redis_server: RedisServer, prefix: str
) -> None:
    execution = {"retry_backoff": 0.1, "max_attempts": 3}
    async with (
        talk(redis_server, prefix, execution=execution) as each,
        worker_process(redis_server.url, prefix),
    ):
        normal = each.executor.stream("normal")
        await until(lambda: each.redis.xinfo_consumers(normal, GROUP), STARTED_WITHIN)
        task_id = await each.sent(agent_id="faulty", message="retryable")
        other_id = await each.sent("acme/s-2", agent_id="echo", message="meanwhile")
        status = await each.service.task_ended(task_id)
        assert (status["status"], status["attempt"]) == ("failed", 3)
        assert status["error"]["error_type"] == "max_attempts"
        assert await each.told() == [
            *retried(attempts=3),
            ("error", status["error"]),
        ]
        assert (await each.service.task_ended(other_id))["result"]["response"] == "meanwhile"

        async def has_removed_all() -> bool:
            return not int(await each.redis.xlen(each.executor.stream("normal")))

        assert await until(has_removed_all)
        assert await each.executor.dead_letters("execute") == []
        counter = await each.redis.get(f"{prefix}attempt:{task_id}")
        assert int(counter) == 3


def retried(attempts: int) -> list[tuple[str, Mapping[str, Any]]]:
    """What is told of attempts that each ask to be tried again; the last one's end is not here."""
    told: list[tuple[str, Mapping[str, Any]]] = [
        ("task_update", {"status": "running", "attempt": 1}),
    ]
    for before, after in itertools.pairwise(range(1, attempts + 1)):
        told += [
            ("task_update", {"status": "queued", "attempt": before}),
            ("task_update", {"status": "running", "attempt": after, "reset": True}),
        ]
    return told


async def test_5_19_only_the_value_true_asks_for_another_attempt(
    redis_server: RedisServer, prefix: str
) -> None:
    """`retryable` is the JSON value true; anything else beside the error is an ordinary failure."""
    async with talk(redis_server, prefix) as each:
        for number, value in enumerate((b"false", b'"true"', b"1", b"null")):
            task = await each.started(f"acme/s-{number}")
            error = orjson.dumps({"type": "t", "message": "m"})
            data = b'{"error":%b,"retryable":%b}' % (error, value)
            await each.executor.report(task, "failed", data)
            status = await each.service.task_ended(task.task_id)
            assert (status["status"], status["error"]["error_type"]) == ("failed", "t")
            await each.executor.finish(task)
