"""An execution service written from section 5 of the contract alone, which misbehaves on purpose.

It takes work, runs made-up agents, and writes down all that it sends before it sends it. What it
sends twice, in the wrong order, too late, for others' tasks or as rubbish is what the rules of
delivery are about. `python -m benchmarks.rig.executor --help`.
"""

import argparse
import asyncio
import contextlib
import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import redis.asyncio as aioredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from benchmarks.rig.attempt import Action, Callback, plan_of
from benchmarks.rig.mischief import mangled, rubbish
from benchmarks.rig.records import Journal, unix_ms

GROUP = "agent-execution"
AWAY = (exceptions.RedisError, OSError, TimeoutError)
Entry = tuple[str, bytes, dict[bytes, bytes]]  # stream, id, fields


class Executor:
    """One start of one executor: its consumer name is its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._prefix = options.prefix
        self._visibility_ms = options.visibility_ms
        self._concurrency = options.concurrency
        self._mischief = options.mischief
        self._name = f"chaos-{secrets.token_hex(4)}"
        self._dice = random.Random(f"{options.seed}:{self._name}")
        self._journal = Journal(options.journal)
        self._streams = [f"{self._prefix}execute:{each}" for each in ("high", "normal", "low")]
        self._running: dict[str, asyncio.Event] = {}  # task id -> it is to be cancelled
        self._tasks: set[asyncio.Task[None]] = set()
        self._redis = aioredis.Redis(
            port=options.redis_port,
            socket_timeout=2.0,
            socket_connect_timeout=2.0,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            protocol=2,
            max_connections=200,
        )

    async def run(self) -> None:
        """For ever; it ends by being killed."""
        async with asyncio.TaskGroup() as group:
            for forever in (self._take, self._claim, self._listen, self._look):
                group.create_task(self._again(forever))

    async def _again(self, forever: Any) -> None:
        while True:
            with contextlib.suppress(*AWAY):
                await forever()
            await asyncio.sleep(0.2)

    # Taking.

    async def _take(self) -> None:
        while True:
            free = self._concurrency - len(self._tasks)
            if free <= 0:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            for stream in self._streams:  # a COUNT holds for each stream: one by one
                free -= await self._read(free, stream)
                if free <= 0:
                    break
            else:
                await self._read(1, *self._streams, block=250)

    async def _read(self, count: int, *streams: str, block: int | None = None) -> int:
        found: Any = await self._redis.xreadgroup(
            GROUP, self._name, dict.fromkeys(streams, ">"), count=count, block=block
        )
        entries = [(name.decode(), *each) for name, items in found or () for each in items]
        return self._begin(entries)

    async def _claim(self) -> None:
        """What others, or a reply that was lost, left idle past the visibility timeout."""
        while True:
            await asyncio.sleep(0.7)
            for stream in self._streams:
                free = self._concurrency - len(self._tasks)
                if free > 0:
                    reply = await self._redis.xautoclaim(
                        stream, GROUP, self._name, self._visibility_ms, count=free
                    )
                    self._begin([(stream, *each) for each in reply[1] if each[1]])

    def _begin(self, entries: Sequence[Entry]) -> int:
        for entry in entries:
            task = asyncio.create_task(self._handle(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(entries)

    # One entry.

    async def _handle(self, entry: Entry) -> None:
        action = Action.read(entry[2])
        if action is None:
            return
        attempt = int(await self._call("INCR", self._attempt_key(action.task)))
        await self._call("EXPIRE", self._attempt_key(action.task), 86_400)
        self._journal.write(task=action.task, attempt=attempt, by=self._name)
        if attempt > action.max_attempts:
            return
        cancel = self._running[action.task] = asyncio.Event()
        keeper = asyncio.create_task(self._keep(entry, action, attempt))
        try:
            await self._run(entry, action, attempt, cancel)
        finally:
            keeper.cancel()
            if self._running.get(action.task) is cancel:
                del self._running[action.task]

    async def _run(self, entry: Entry, action: Action, attempt: int, cancel: asyncio.Event) -> None:
        plan = plan_of(action, attempt, random.Random(f"{action.task}:{attempt}"))
        sent = 0
        if await self._is_cancelled(action.task) or unix_ms() >= action.deadline:
            cancel.set()
        for callbacks, pause in mangled(plan.steps, self._dice, self._mischief):
            if cancel.is_set():
                break
            await self._send(action, callbacks)
            sent += len(callbacks)
            await _set_within(cancel, pause)
        if plan.hangs:
            await _set_within(cancel, (action.deadline - unix_ms()) / 1000)
        # A worker that was frozen past its lease does not know, and ends the task once more.
        gives_up = cancel.is_set() or plan.hangs
        await self._send(action, [plan.cancelled(sent + 1)] if gives_up else plan.end)
        if not gives_up:
            self._journal.write(concluded=action.task, attempt=attempt, number=plan.end[0].number)
        await self._finish(entry, action, attempt)
        if self._dice.random() < self._mischief:
            await self._send(action, [plan.afterthought(sent + 2)])

    async def _finish(self, entry: Entry, action: Action, attempt: int) -> None:
        if await self._is_ours(action.task, attempt):
            await self._call("XACK", entry[0], GROUP, entry[1])
            await self._call("XDEL", entry[0], entry[1])

    async def _keep(self, entry: Entry, action: Action, attempt: int) -> None:
        """Shows that we still run, for as long as the entry is ours."""
        while True:
            await asyncio.sleep(self._visibility_ms / 4000)
            if not await self._is_ours(action.task, attempt):
                return
            await self._call("XCLAIM", entry[0], GROUP, self._name, 0, entry[1], "JUSTID")

    async def _is_ours(self, task: str, attempt: int) -> bool:
        return int(await self._call("GET", self._attempt_key(task)) or 0) == attempt

    # Sending.

    async def _send(self, action: Action, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            fields = callback.fields(action)
            self._journal.write(**callback.record())
            await self._call("XADD", action.callback_stream, "*", *fields)
            if self._dice.random() < self._mischief:
                await self._call("XADD", action.callback_stream, "*", *fields)
        if self._dice.random() < self._mischief / 4:
            await self._send_rubbish(action)

    async def _send_rubbish(self, action: Action) -> None:
        """What belongs to no task of ours. Each has an id by which it is found again."""
        bad_id = secrets.token_hex(8)
        kind, fields, reason = rubbish(action, bad_id, self._dice)
        self._journal.write(bad=bad_id, kind=kind, reason=reason)
        await self._call("XADD", action.callback_stream, "*", *fields)
        self._journal.write(sent=bad_id)

    # Cancelling.

    async def _listen(self) -> None:
        pubsub = self._redis.pubsub()
        try:
            await pubsub.subscribe(f"{self._prefix}control")
            while True:
                heard = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if heard:
                    said = orjson.loads(heard["data"])
                    self._cancel(said["task_id"])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for task in list(self._running):
                if await self._is_cancelled(task):
                    self._cancel(task)

    def _cancel(self, task: str) -> None:
        if task in self._running:
            self._running[task].set()

    async def _is_cancelled(self, task: str) -> bool:
        return bool(await self._call("EXISTS", f"{self._prefix}cancel:{task}"))

    # Redis.

    def _attempt_key(self, task: str) -> str:
        return f"{self._prefix}attempt:{task}"

    async def _call(self, *command: Any) -> Any:
        """Until it worked. A lost reply makes it happen twice, which is one more thing to bear."""
        while True:
            try:
                return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
            except AWAY:
                await asyncio.sleep(self._dice.uniform(0.05, 0.3))


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Returns when it is set, or the time is up."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, seconds))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks.rig.executor", description=__doc__)
    options.add_argument("--redis-port", type=int, required=True, help="where Redis is reached")
    options.add_argument("--prefix", required=True, help="the orchestrator's redis.key_prefix")
    options.add_argument("--visibility-ms", type=int, default=60_000, help="when work is abandoned")
    options.add_argument("--journal", type=Path, required=True, help="where to write what is sent")
    options.add_argument("--concurrency", type=int, default=64, help="tasks at once")
    options.add_argument("--seed", type=int, default=0, help="what the dice begin with")
    options.add_argument(
        "--mischief", type=float, default=0.05, help="how often something is done wrong, 0 to 1"
    )
    return options


if __name__ == "__main__":
    asyncio.run(Executor(parser().parse_args()).run())
