"""The bench's agent for the project's own worker: `python -m execution --agents` of this module.

It does what the bench's executor does, as far as an honest agent can.
"""

import asyncio
import random
from collections.abc import AsyncIterator

from benchmarks.rig.records import Marker
from execution import Delta, Event, Failed, Output, Progress, Result, Retryable, Task, Worker

worker = Worker()


@worker.agent("bench")
async def bench(task: Task) -> AsyncIterator[Output]:
    """Streams marks; hangs or fails if the message's context asks for it."""
    mark = Marker(task.tenant_id, task.session_id, task.task_id, task.attempt)
    dice = random.Random(f"{task.task_id}:{task.attempt}")
    for _ in range(dice.randint(3, 20)):
        yield Delta(f"{mark()} word ")
        await asyncio.sleep(dice.uniform(0.005, 0.08))
        if dice.random() < 0.1:
            yield Event("tool_call", mark=mark())
        if dice.random() < 0.1:
            yield Progress(dice.randint(0, 100), mark())
    if task.context.get("behave") == "hang":
        await asyncio.Event().wait()
    if task.context.get("behave") == "fail":
        raise Failed(f"as asked {mark()}", type="asked_for")
    if task.context.get("behave") == "retry" and task.attempt == 1:
        raise Retryable("as asked", type="passing")
    yield Result(agent_info={"mark": mark()})
