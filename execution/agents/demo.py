"""Agents that need no network: to try everything out, and to see it fail."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator

from execution import (
    Delta,
    Event,
    Failed,
    Output,
    Progress,
    Result,
    Retryable,
    Task,
    Typing,
    Usage,
    Worker,
)

worker = Worker()

MAX_FLOOD = 1_000_000
HELP = """\
I fail as you ask. Say one of:
  error            the task fails
  retryable        the task fails, and may be tried again
  crash            the worker's process dies (SIGKILL)
  crash once       the same, but the second attempt completes
  hang             nothing more comes, until it is cancelled or times out
  flood N          N deltas as fast as they can be sent
"""


def delay_of(task: Task, default_ms: float) -> float:
    """Seconds between two words: `context.delay_ms`, 0 to 60000, else the agent's own."""
    delay_ms = task.context.get("delay_ms", default_ms)
    if isinstance(delay_ms, bool) or not isinstance(delay_ms, int | float):
        raise Failed("context.delay_ms must be a number", type="invalid_context")
    if not 0 <= delay_ms <= 60_000:
        raise Failed("context.delay_ms must be 0 to 60000", type="invalid_context")
    return delay_ms / 1000


def words(text: str) -> list[str]:
    """The text in pieces of a word and the white space around it; joined they are the text."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)


async def spoken(text: str, delay: float) -> AsyncIterator[str]:
    for word in words(text):
        yield word
        await asyncio.sleep(delay)


@worker.agent("echo")
async def echo(task: Task) -> AsyncIterator[Output]:
    """Says the message back, word by word."""
    delay = delay_of(task, 20)
    async for word in spoken(task.message, delay):
        yield word


STORY = (
    ("weather", "It had rained for three days when the lighthouse keeper found the bottle. "),
    ("tides", "The tide had carried it past two harbours, and nobody had looked at it twice. "),
    ("letters", "Inside was a letter in her own hand, dated a year from now. "),
)


@worker.agent("storyteller")
async def storyteller(task: Task) -> AsyncIterator[Output]:
    """Tells a story about the message, and shows how it comes by it: tools, progress, sources."""
    delay = delay_of(task, 40)
    yield Typing()
    yield Event("reasoning", text=f"A story about {task.message[:80]!r} wants a beginning.")
    yield Progress(0, "looking things up")
    spoken_words = 0
    for step, (tool, text) in enumerate(STORY, 1):
        call_id = f"{task.task_id}:{step}"
        yield Event("tool_call", id=call_id, tool=tool, arguments={"about": task.message[:80]})
        yield Typing()
        await asyncio.sleep(delay * 5)
        yield Event("tool_result", id=call_id, tool=tool, result=f"{step} things found")
        async for word in spoken(text, delay):
            spoken_words += 1
            yield Delta(word, part=step)
        yield Progress(round(step * 100 / len(STORY)), f"told part {step} of {len(STORY)}")
    sources = [{"title": tool, "url": f"https://example.com/{tool}"} for tool, _ in STORY]
    usage = Usage(input_tokens=len(words(task.message)), output_tokens=spoken_words, cost=0.0)
    yield Result(sources=sources, usage=usage)


@worker.agent("faulty")
async def faulty(task: Task) -> AsyncIterator[Output]:
    """Fails as the message asks; explains itself if it asks for nothing it knows."""
    match task.message.lower().split():
        case ["error"]:
            raise Failed("You asked for an error.", type="asked_for")
        case ["retryable"]:
            raise Retryable("You asked for an error that may pass.", type="asked_for")
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["crash", "once"] if task.attempt == 1:
            yield "This is never the end of it. "
            await asyncio.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        case ["crash", "once"]:
            yield f"Survived: this is attempt {task.attempt}."
        case ["hang"]:
            yield "Hanging."
            await asyncio.Event().wait()
        case ["flood", count] if count.isdecimal() and int(count) <= MAX_FLOOD:
            for number in range(int(count)):
                yield f"{number} "
        case _:
            yield HELP
