"""Section 5: what each callback becomes (5.12 to 5.20); retries are in test_retries.py."""

import orjson

from tests.contract.talk import talk
from tests.support.client import frames_until, next_frame
from tests.support.redis_server import RedisServer


async def test_5_2_and_5_12_a_plain_connection_to_redis_is_all_that_an_executor_needs(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task_id = await each.sent(message="2 + 2")
        stream = f"{prefix}execute:normal"
        ((_, entries),) = await each.redis.xreadgroup("agent-execution", "w", {stream: ">"})
        ((entry_id, fields),) = entries
        action = orjson.loads(fields[b"action"])
        assert await each.redis.incr(f"{prefix}attempt:{task_id}") == 1
        for seq, (type_, data) in enumerate(
            (("started", {}), ("delta", {"text": "4"}), ("completed", {"response": "4"})), start=1
        ):
            await each.redis.xadd(
                action["callback_stream"],
                {
                    "task_id": task_id,
                    "tenant_id": "acme",
                    "session_id": "s-1",
                    "attempt": 1,
                    "seq": seq,
                    "type": type_,
                    "data": orjson.dumps(data),
                },
            )
        await each.redis.xack(stream, "agent-execution", entry_id)
        await each.redis.xdel(stream, entry_id)
        status = await each.service.task_ended(task_id)
        assert (status["status"], status["result"]["response"]) == ("completed", "4")


async def test_5_13_started_makes_the_task_running(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.taken()
        before = await each.service.status(task.task_id)
        assert (before["status"], before["attempt"], before["started_at"]) == ("queued", None, None)
        await each.executor.report(task, "started")
        await each.handled(task)
        after = await each.service.status(task.task_id)
        assert (after["status"], after["attempt"]) == ("running", 1)
        assert after["started_at"] is not None
        assert await each.told() == [("task_update", {"status": "running", "attempt": 1})]


async def test_5_14_and_5_15_deltas_and_events_become_frames(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.executor.report(task, "delta", {"text": ""})
        await each.executor.report(task, "delta", b' {"text" : "x\\u00e9", "a":[ ]} ')
        await each.executor.report(task, "event", {"name": "", "arguments": []})
        await each.handled(task)
        assert (await each.told())[1:] == [
            ("agent_delta", {"text": ""}),
            ("agent_delta", {"text": "xé", "a": []}),
            ("agent_event", {"name": "", "arguments": []}),
        ]


async def test_5_16_progress_is_a_task_update_and_known_to_the_status(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        for progress in (0, 0.5, 100):
            data = {"progress": progress, "message": "so far"}
            await each.executor.report(task, "progress", data)
            await each.handled(task)
            assert (await each.told())[-1] == ("task_update", {"status": "running", **data})
            assert (await each.service.status(task.task_id))["progress"] == progress


async def test_5_16_progress_out_of_bounds_cannot_be_read(
    redis_server: RedisServer, prefix: str
) -> None:
    wrong = (-1, 100.1, "50", None, True)
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        for progress in wrong:
            await each.executor.report(task, "progress", {"progress": progress})
        await each.executor.report(task, "delta", {"text": "goes on"})
        await each.handled(task)
        assert (await each.told())[1:] == [("agent_delta", {"text": "goes on"})]
        letters = await each.executor.dead_letters("callbacks")
        assert [letter[b"reason"] for letter in letters] == [b"unreadable"] * len(wrong)


async def test_5_17_typing_passes_by_and_takes_its_seq(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each, each.joined() as socket:
        task = await each.started()
        await frames_until(socket, "task_update")
        await each.executor.report(task, "typing")
        await each.executor.report(task, "delta", {"text": "x"})
        types = [(await next_frame(socket))["type"] for _ in range(2)]
        assert sorted(types) == ["agent_delta", "typing_indicator"]


async def test_5_18_completed_ends_the_task_with_its_result_and_usage(
    redis_server: RedisServer, prefix: str
) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "cost": 0.01}
    data = {
        "response": "done",
        "sources": [{"title": "t"}],
        "execution_time": 2,
        "tokens_used": 7,
        "usage": usage,
        "agent_info": {},
    }
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.executor.report(task, "delta", {"text": "do"})
        await each.executor.report(task, "completed", data)
        status = await each.service.task_ended(task.task_id)
        assert (status["status"], status["result"], status["usage"]) == ("completed", data, usage)
        assert status["error"] is None
        assert status["finished_at"] is not None
        assert (await each.told())[-1] == ("agent_response", data)


async def test_5_19_failed_ends_the_task_and_keeps_what_was_streamed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.executor.report(task, "delta", {"text": "so "})
        await each.executor.report(task, "delta", {"text": "far"})
        error = {"type": "boom", "message": "It broke."}
        await each.executor.report(task, "failed", {"error": error, "retryable": False})
        status = await each.service.task_ended(task.task_id)
        assert status["status"] == "failed"
        assert status["result"] == {"response": "so far", "partial": True}
        (end,) = await each.ends(task)
        assert end["data"] == {
            "code": "task_failed",
            "status": "failed",
            "error_type": "boom",
            "message": "It broke.",
        }


async def test_5_20_cancelled_ends_the_task(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        assert await each.cancel(task.task_id) == (202, "cancelling")
        await each.executor.report(task, "cancelled")
        assert (await each.service.task_ended(task.task_id))["status"] == "cancelled"
        assert [data["status"] for _, data in await each.told()] == [
            *("running", "cancelling", "cancelled"),
        ]


async def test_5_20_a_worker_may_stop_before_it_heard_of_its_cancellation(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.executor.report(task, "cancelled")
        status = await each.service.task_ended(task.task_id)
        assert (status["status"], status["error"]) == ("cancelled", None)
        assert len(await each.ends(task)) == 1
