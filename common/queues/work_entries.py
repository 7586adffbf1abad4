"""What a worker takes from the work streams, and what it adds to the callbacks (section 5)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from common.domain.errors import TemporaryError
from common.domain.ids import TaskId
from common.queues.scripts import Command
from common.queues.streams import fields_of

DEFAULT_VISIBILITY_MS = 60_000  # of an entry that does not say; the contract's default


class GroupMissing(TemporaryError):
    """The orchestrator has not made the work streams' consumer group yet."""


class RedisRefused(Exception):
    """Redis does not accept this worker, or we not its certificate; the message says why."""


@dataclass(frozen=True, slots=True)
class WorkEntry:
    """An entry of a work stream, as it was delivered; its fields are not checked yet."""

    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]

    @property
    def task_id(self) -> TaskId:
        """Empty if the entry has none."""
        return TaskId(self.fields.get(b"task_id", b"").decode(errors="replace"))

    @property
    def action(self) -> bytes:
        return self.fields.get(b"action", b"")


@dataclass(frozen=True, slots=True)
class Lease:
    """This worker's right to an entry, for as long as `attempt` is the newest of its task."""

    entry: WorkEntry
    attempt: int


class Begun(NamedTuple):
    """What Redis said when an attempt began. `now_ms` is Redis's clock, `cancel` the reason."""

    attempt: int
    cancel: str | None
    now_ms: int


class Report(NamedTuple):
    """One callback, ready to be added to `stream`. `data` is a JSON object."""

    stream: str
    task_id: str
    tenant_id: str
    session_id: str
    attempt: int
    seq: int
    type: str
    data: bytes

    def command(self) -> Command:
        return (
            *("XADD", self.stream, "*"),
            *("task_id", self.task_id, "tenant_id", self.tenant_id, "session_id", self.session_id),
            *("attempt", self.attempt, "seq", self.seq, "type", self.type, "data", self.data),
        )


def entries_of(stream: str, found: Iterable[tuple[bytes, list[bytes]]]) -> list[WorkEntry]:
    """The entries of one stream, as Redis tells them."""
    return [WorkEntry(stream, entry_id.decode(), fields_of(flat)) for entry_id, flat in found]
