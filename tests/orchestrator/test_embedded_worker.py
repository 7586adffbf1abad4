"""The worker with the demo agents that `make run` brings along."""

import os
import signal

from orchestrator.embedded_worker import EmbeddedWorker
from tests.support.redis_server import RedisServer
from tests.support.service import Running, running_service


async def answer_to(running: Running, message: str) -> str:
    answer = await running.send(agent_id="echo", message=message)
    task = await running.task_ended(answer.json["task_id"])
    said: str = task["result"]["response"]
    return said


async def test_it_runs_tasks_and_is_started_again_when_it_dies(
    redis_server: RedisServer, prefix: str
) -> None:
    # What the dying worker's open read still takes is another's after the visibility timeout.
    short = {"visibility_timeout": 1}
    async with running_service(redis_server.url, prefix, execution=short) as running:
        settings = running.service.app.settings
        worker = EmbeddedWorker(settings, redis_server.url, running.service.address)
        await worker.start()
        try:
            assert await answer_to(running, "one") == "one"
            assert worker._child is not None
            os.kill(worker._child.pid, signal.SIGKILL)
            assert await answer_to(running, "two") == "two"
        finally:
            await worker.stop()
        assert worker._child.returncode == 0
