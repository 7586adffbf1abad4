"""Dead letters as large as messages may be."""

from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

OWN = 8  # values of the body beside what is in the list: itself, its six fields, the list


async def test_a_message_of_as_many_values_as_may_be_is_tried_again_as_it_was(
    redis_server: RedisServer, prefix: str
) -> None:
    """Though the letter holds more: what the orchestrator added to it counts as well."""
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        too_much = {"a": [1] * (50_000 - OWN + 1)}
        assert (await service.send(if_busy="parallel", context=too_much)).status == 422
        most = {"a": [1] * (50_000 - OWN)}
        assert (await service.send(if_busy="parallel", context=most)).status == 202
        task = await executor.take()
        ((_, entry),) = await executor.redis.xrange(task.stream, task.entry_id, task.entry_id)
        await executor.redis.xadd(f"{prefix}dead:execute", {"reason": "max_attempts", **entry})
        (letter,) = (await service.get("/dead-letters/execute")).json["items"]
        answer = await service.post(f"/dead-letters/execute/{letter['id']}/requeue", b"")
        assert answer.status == 202, answer
        again = await executor.take()
        assert again.task_id == answer.json["task_id"] != task.task_id
        assert again.action["context"] == task.action["context"] == most
