"""What Redis holds at the end: the logs, the tasks, and what should not be there any more (I7)."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import redis

from benchmarks.rig.events import Event
from benchmarks.rig.findings import Findings
from benchmarks.rig.task_check import Sent
from common.domain.ids import SessionId, SessionKey, TaskId, TenantId
from common.queues.keys import ACTIONS_GROUP, CALLBACK_GROUP, DUE_SHARDS, WORK_GROUP, Keys

PAGE = 1000
COUNT = {b"set": "SCARD", b"zset": "ZCARD", b"hash": "HLEN", b"stream": "XLEN"}


class FinalState:
    """Redis, read without the service's help once nothing moves any more."""

    def __init__(self, port: int, prefix: str) -> None:
        self._redis = redis.Redis(port=port, socket_timeout=10.0)
        self._keys = Keys(prefix)

    def close(self) -> None:
        self._redis.close()

    def log_of(self, tenant: str, session: str) -> tuple[str | None, int, list[Event]]:
        """Epoch, last offset and the events that are kept."""
        key = SessionKey(TenantId(tenant), SessionId(session))
        epoch, last = self._call("HMGET", self._keys.session_meta(key), "epoch", "last")
        events = []
        for entry_id, fields in self._call("XRANGE", self._keys.session_log(key), "-", "+"):
            entry = orjson.loads(fields[b"e"])
            offset = int(entry_id.split(b"-")[0])
            events.append(Event(offset, entry["type"], entry.get("task_id"), entry["data"]))
        return epoch and epoch.decode(), int(last or 0), events

    def ends_of(self, sessions: Iterable[tuple[str, str]]) -> list[int]:
        """Where the logs of these sessions end, asked in one go."""
        pipeline = self._redis.pipeline(transaction=False)
        for tenant, session in sessions:
            key = SessionKey(TenantId(tenant), SessionId(session))
            pipeline.hget(self._keys.session_meta(key), "last")
        return [int(last or 0) for last in pipeline.execute()]

    def status_of(self, tenant: str, session: str, task: str) -> str | None:
        key = self._keys.task(SessionKey(TenantId(tenant), SessionId(session)), TaskId(task))
        status = self._call("HGET", key, "status")
        return None if status is None else str(status.decode())

    # What should not be there.

    def pending(self) -> dict[str, int]:
        """All that waits or is held, by place; empty once everything is done."""
        found = {}
        streams = [(each, WORK_GROUP) for each in self._keys.work_streams]
        streams.append((self._keys.callbacks, CALLBACK_GROUP))
        streams.append((self._keys.actions, ACTIONS_GROUP))
        for stream, group in streams:
            found[f"entries in {stream}"] = int(self._call("XLEN", stream))
            found[f"taken of {stream}"] = self._pending_in(stream, group)
        for shard in range(DUE_SHARDS):
            found[f"due in shard {shard}"] = int(self._call("ZCARD", self._keys.due_shard(shard)))
        for ending in ("parked", "waiting", "open"):
            for key in self._scan(f"*:{ending}"):
                count = COUNT.get(self._call("TYPE", key))  # gone since: None
                found[key] = int(self._call(count, key)) if count else 0
        return {place: count for place, count in found.items() if count}

    def _pending_in(self, stream: str, group: str) -> int:
        try:
            reply = self._call("XPENDING", stream, group)
        except redis.ResponseError:
            return 0  # no such stream: nobody ever used it
        return int(reply["pending"] if isinstance(reply, dict) else reply[0])

    def check_letters(self, sent: Sent, findings: Findings) -> int:
        """What had to be set aside was, with its reason; says how many there are."""
        reasons: dict[str, str] = {}
        letters = 0
        for fields in self._letters():
            letters += 1
            text = orjson.dumps([value.decode(errors="replace") for value in fields.values()])
            reason = fields[b"reason"].decode()
            for bad_id in sent.bad.keys() & set(_words(text.decode())):
                reasons[bad_id] = reason
        for bad_id, reason in sent.bad.items():
            found = reasons.get(bad_id)
            if found != reason and (found is not None or bad_id in sent.certain):
                findings.add("lost", f"rubbish {bad_id}: dead letter {found}, not {reason}")
        return letters

    def _letters(self) -> Iterator[dict[bytes, bytes]]:
        start = "-"
        while True:
            page: list[tuple[bytes, dict[bytes, bytes]]] = self._call(
                "XRANGE", self._keys.dead_callbacks, start, "+", "COUNT", PAGE
            )
            yield from (fields for _, fields in page)
            if len(page) < PAGE:
                return
            start = f"({page[-1][0].decode()}"

    def _scan(self, pattern: str) -> Iterator[str]:
        for key in self._redis.scan_iter(f"{self._keys.prefix}{pattern}", count=1000):
            yield key.decode()

    def _call(self, *command: Any) -> Any:
        return self._redis.execute_command(*command)  # type: ignore[no-untyped-call]


def _words(text: str) -> list[str]:
    """Runs of sixteen hexadecimal digits: the ids of rubbish are such."""
    cleaned = "".join(each if each in "0123456789abcdef" else " " for each in text)
    return [word for word in cleaned.split() if len(word) == 16]
