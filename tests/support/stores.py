"""The stores put together as the service does, on a real Redis, for tests to use directly."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from common.domain.actions import ChatCancelTaskAction, ChatSendMessageAction, IfBusy, Priority
from common.domain.errors import OrchestratorError
from common.domain.ids import AgentId, SessionId, SessionKey, TaskId, TenantId
from common.domain.tasks import Submitted, Task
from common.queues import stores as real
from common.queues.admissions import TierOf, unlimited
from common.queues.callbacks import Applied
from common.queues.due import DueTask
from common.queues.redis import Redis
from common.queues.streams import Entry

ACME = TenantId("acme")
SESSION = SessionKey(ACME, SessionId("s-1"))
OTHER_SESSION = SessionKey(ACME, SessionId("s-2"))
AFTER_ALL = 10_000  # more entries than any test makes

Report = tuple[int, int, str, Any]  # attempt, seq, type and data of a callback
STARTED: Report = (1, 1, "started", {})


def delta(seq: int, text: str = "x", attempt: int = 1) -> Report:
    return (attempt, seq, "delta", {"text": text})


def key_of(session_id: str, tenant_id: str = ACME) -> SessionKey:
    return SessionKey(TenantId(tenant_id), SessionId(session_id))


def message(session: SessionKey = SESSION, **fields: Any) -> ChatSendMessageAction:
    known: dict[str, Any] = {
        "agent_id": AgentId("echo"),
        "message": "hello",
        "timeout": 300.0,
        "if_busy": IfBusy.PARALLEL,
    }
    return ChatSendMessageAction(
        tenant_id=session.tenant_id, session_id=session.session_id, **(known | fields)
    )


class Stores(real.Stores):
    """The stores under one prefix, and the moves of a test."""

    def __init__(
        self,
        url: str,
        prefix: str,
        *,
        socket_timeout: float = 2.0,
        max_events: int = 1000,
        ttl: float = 3600,
        max_attempts: int = 3,
        max_bytes: int = 1_000_000,
        cancel_grace_ms: int = 10_000,
        gap_timeout_ms: int = 90_000,
        retry_backoff_ms: int = 100,
        max_wait_ms: int = 3_600_000,
        consumer: str = "instance-1",
        prefetch: int = 1000,
        tier_of: TierOf = unlimited,
        **waiting: int,
    ) -> None:
        settings = real.StoreSettings(
            max_events=max_events,
            ttl=ttl,
            max_attempts=max_attempts,
            cancel_grace=cancel_grace_ms / 1000,
            gap_timeout=gap_timeout_ms / 1000,
            retry_backoff=retry_backoff_ms / 1000,
            max_wait=max_wait_ms / 1000,
            max_callback_bytes=max_bytes,
            prefetch=prefetch,
            tier_of=tier_of,
            **waiting,
        )
        super().__init__(Redis(url, socket_timeout=socket_timeout), prefix, consumer, settings)

    async def close(self) -> None:
        await self.callbacks.stream.close()
        await self.pushes.stream.close()
        await self.redis.close()

    # The way in.

    async def submit(self, session: SessionKey = SESSION, **fields: Any) -> TaskId:
        submitted = await self.submit_action(message(session, **fields))
        assert isinstance(submitted, Submitted), submitted
        return submitted.task_id

    async def submit_action(self, action: ChatSendMessageAction) -> Submitted | OrchestratorError:
        (outcome,) = await self.submissions.submit([action])
        return outcome

    async def submit_and_deliver(self, session: SessionKey = SESSION, **fields: Any) -> TaskId:
        action = message(session, **fields)
        submitted = await self.submit_action(action)
        assert isinstance(submitted, Submitted), submitted
        await self.submissions.set_out([(action, submitted)])
        return action.task_id

    async def cancel(self, task_id: TaskId, reason: str = "", tenant_id: str = ACME) -> str:
        action = ChatCancelTaskAction(tenant_id=TenantId(tenant_id), task_id=task_id, reason=reason)
        return (await self.tasks.cancel(action)).status

    async def look(self, task_id: TaskId, session: SessionKey = SESSION) -> str | None:
        """The look at a task that a sweep makes when it is due."""
        due = DueTask(session=session, task_id=task_id, leased_until=0)
        return await self.watch.check(due)

    # The way out.

    async def add(self, fields: Mapping[str, str | bytes | int]) -> None:
        """Adds an entry to the callback stream, as a worker does."""
        flat = [part for field in fields.items() for part in field]
        await self.redis.call("XADD", self.keys.callbacks, "*", *flat)

    async def report(
        self,
        task_id: TaskId,
        *reports: Report,
        session: SessionKey = SESSION,
    ) -> Applied:
        """Adds callbacks and handles all that waits."""
        for attempt, seq, type_, data in reports:
            await self.add(callback_fields(task_id, attempt, seq, type_, data, session))
        return await self.handle()

    async def read(self) -> list[Entry]:
        await self.callbacks.stream.ensure_group()
        return await self.callbacks.stream.read(AFTER_ALL, 0.001)

    async def handle(self) -> Applied:
        return await self.callbacks.apply(await self.read())

    # What came of it.

    async def events(self, session: SessionKey = SESSION) -> list[dict[str, Any]]:
        """The kept events of a session, each with its offset."""
        page = await self.log.read(session, 0, AFTER_ALL)
        return [{**orjson.loads(event.entry), "offset": event.offset} for event in page.events]

    async def told(self, session: SessionKey = SESSION) -> list[tuple[str, Any]]:
        """Types and data of the session's events, without `user_message`."""
        events = await self.events(session)
        return [(e["type"], e["data"]) for e in events if e["type"] != "user_message"]

    async def task(self, task_id: TaskId, tenant_id: str = ACME) -> Task:
        return await self.tasks.get(TenantId(tenant_id), task_id)

    async def dead(self) -> list[dict[str, bytes]]:
        """The dead letters of the callback stream."""
        letters = await self.redis.call("XRANGE", self.keys.dead_callbacks, "-", "+")
        return [_named(fields) for _, fields in letters]

    async def dead_work(self) -> list[dict[str, bytes]]:
        letters = await self.redis.call("XRANGE", self.keys.dead_execute, "-", "+")
        return [_named(fields) for _, fields in letters]

    async def is_due(self, task_id: TaskId) -> bool:
        """Whether a task of the usual session is to be looked at."""
        member = f"{SESSION}:{task_id}"
        return await self.redis.call("ZSCORE", self.keys.due(task_id), member) is not None

    async def work_entries(self) -> list[dict[str, Any]]:
        """The actions in the work stream of normal priority."""
        found = await self.redis.call("XRANGE", self.keys.work_stream(Priority.NORMAL), "-", "+")
        return [orjson.loads(fields[3]) for _, fields in found]

    async def ttl(self, key: str) -> int:
        """Seconds until a key expires; -1 for never, -2 where there is none."""
        return int(await self.redis.call("TTL", key))

    async def exists(self, key: str) -> bool:
        return bool(await self.redis.call("EXISTS", key))


def callback_fields(
    task_id: str, attempt: int, seq: int, type_: str, data: Any, session: SessionKey = SESSION
) -> dict[str, str | bytes | int]:
    return {
        "task_id": task_id,
        "tenant_id": session.tenant_id,
        "session_id": session.session_id,
        "attempt": attempt,
        "seq": seq,
        "type": type_,
        "data": data if isinstance(data, bytes | str) else orjson.dumps(data),
    }


def entry_of(fields: Mapping[str, str | bytes | int], id_: str = "1-0") -> Entry:
    """The entry that these fields would be read as."""
    return Entry(
        id_.encode(),
        {
            name.encode(): value if isinstance(value, bytes) else str(value).encode()
            for name, value in fields.items()
        },
    )


def _named(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


@asynccontextmanager
async def stores(url: str, prefix: str, **settings: Any) -> AsyncIterator[Stores]:
    opened = Stores(url, prefix, **settings)
    try:
        yield opened
    finally:
        await opened.close()
