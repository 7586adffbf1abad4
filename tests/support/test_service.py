"""The real service that tests use starts, serves, and leaves nothing behind."""

from tests.support.client import frames_until
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service


async def test_a_service_in_this_process_takes_a_message_to_its_end(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/s-1") as socket,
    ):
        assert (await frames_until(socket, "connection_ack"))[0]["data"]["offset"] == 0
        task_id = (await service.send("acme/s-1")).json["task_id"]
        task = await executor.take()
        assert task.task_id == task_id
        await executor.stream_answer(task, "Hel", "lo")
        await executor.complete(task, "Hello")
        frames = await frames_until(socket, "agent_response")
        assert [frame["offset"] for frame in frames] == [1, 2, 3, 4, 5]
        assert (await service.task_ended(task_id))["result"]["response"] == "Hello"


async def test_a_service_in_a_process_of_its_own_serves_and_can_be_killed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with process_service(redis_server.url, prefix) as service:
        assert (await service.send()).status == 202
        await service.kill()
        assert await service.exited() == -9
