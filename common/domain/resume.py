"""Resume, then live: how one connection gets every event of its session once, in order (section 4).

No I/O. A connection subscribes first, reads the log after, and this core decides what to write:

    REPLAYING --page reaches what was published meanwhile--> LIVE
    LIVE      --an event does not follow the last one-------> REPLAYING
    either    --another epoch, or the log trimmed past us---> LOST

What is published while replaying is held in a small buffer; what does not fit is dropped, because
the log has it. `position` is the offset up to which the client has everything. The caller writes
what `Step.events` holds, reads the log where `Step.read` asks for it, and closes with 4410 on
`Step.lost`. One read is outstanding at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from common.domain.events import Event

BUFFERED_EVENTS = 1000
BUFFERED_BYTES = 1024 * 1024


class Phase(Enum):
    """What the connection is doing."""

    REPLAYING = auto()
    LIVE = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Published:
    """Events that a session's channel told: at least one, their offsets without holes."""

    epoch: str
    events: tuple[Event, ...]

    @property
    def first(self) -> int:
        return self.events[0].offset

    @property
    def last(self) -> int:
        return self.events[-1].offset

    @property
    def size(self) -> int:
        """Bytes of the entries."""
        return sum(len(event.entry) for event in self.events)


@dataclass(frozen=True, slots=True)
class Step:
    """What the caller has to do now, in this order: write, then read, or close."""

    events: Sequence[Event] = ()
    read: bool = False  # the log after `position`
    lost: bool = False


NOTHING = Step()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequest:
    """What a client asked for: both, neither, or `offset` alone (0 by WebSocket)."""

    epoch: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """How a join came out, as `connection_ack` tells it."""

    epoch: str | None
    last: int
    start: int  # the offset after which events are written
    recovered: bool

    @property
    def replayed(self) -> int:
        return self.last - self.start


def join(request: ResumeRequest, epoch: str | None, last: int, oldest: int) -> Joined:
    """Decides where a connection starts. `oldest` is the first offset kept, 0 where none is."""
    kept_from = (oldest or last + 1) - 1  # everything after this offset is kept
    offset = request.offset
    if offset is None:
        return Joined(epoch=epoch, last=last, start=last, recovered=False)
    if request.epoch is None and offset <= last:  # all that is kept after it
        start = max(offset, kept_from)
        return Joined(epoch=epoch, last=last, start=start, recovered=start == offset)
    if request.epoch == epoch and kept_from <= offset <= last:
        return Joined(epoch=epoch, last=last, start=offset, recovered=True)
    return Joined(epoch=epoch, last=last, start=last, recovered=False)


class Resume:
    """The machine of one connection, from its join on."""

    def __init__(self, joined: Joined) -> None:
        self.epoch = joined.epoch
        self.position = joined.start
        self.phase = Phase.LIVE if joined.start == joined.last else Phase.REPLAYING
        self._known = joined.last  # the highest offset that the log is known to have
        self._asked = joined.last  # the same when the read that is under way was asked for
        self._doubtful = False  # something may have been missed since then
        self._buffer: list[Published] = []
        self._buffered = self._buffered_bytes = 0

    def begin(self) -> Step:
        """The first step: a read, unless there is nothing to replay."""
        return NOTHING if self.phase is Phase.LIVE else self._read()

    def published(self, message: Published) -> Step:
        """Something was told on the session's channel."""
        if self.phase is Phase.LOST:
            return NOTHING
        if message.epoch != self.epoch:
            return self._lose()
        self._known = max(self._known, message.last)
        if self.phase is Phase.REPLAYING:
            self._hold(message)
            return NOTHING
        if message.first > self.position + 1:
            self.phase = Phase.REPLAYING
            self._hold(message)
            return self._read()
        return Step(events=self._take(message))

    def doubted(self) -> Step:
        """Messages may have been missed (the bridge was rebuilt): the log will tell."""
        if self.phase is Phase.LIVE:
            self.phase = Phase.REPLAYING
            return self._read()
        self._doubtful = True  # the read under way may be older than what was missed
        return NOTHING

    def page(self, epoch: str | None, last: int, events: Sequence[Event]) -> Step:
        """A read of the log after `position` came back, with the log's state at that moment."""
        if self.phase is not Phase.REPLAYING:
            return NOTHING
        if epoch != self.epoch or last < self._asked:
            return self._lose()  # begun anew, or gone back behind what it was known to have
        if events and events[0].offset != self.position + 1:
            return self._lose()  # trimmed past us while we replayed
        self._known = max(self._known, last)
        if events:
            self.position = events[-1].offset
        elif last > self.position:
            return self._lose()  # the log goes on, but what follows us is no longer kept
        fresh = [*events, *self._drain_buffer()]
        if self.position >= self._known and not self._doubtful:
            self.phase = Phase.LIVE
            self._forget_buffer()
            return Step(events=fresh)
        return self._read(fresh)

    def _read(self, events: Sequence[Event] = ()) -> Step:
        """A step that asks for a read, which will know of all that is known now."""
        self._asked, self._doubtful = self._known, False
        return Step(events=events, read=True)

    def _take(self, message: Published) -> Sequence[Event]:
        """The part of a message that follows `position`; it overlaps or adjoins."""
        fresh = message.events[max(0, self.position + 1 - message.first) :]
        if fresh:
            self.position = fresh[-1].offset
        return fresh

    def _hold(self, message: Published) -> None:
        """Keeps it until the log was read up to it; what is too much will be read there as well."""
        count, size = self._buffered + len(message.events), self._buffered_bytes + message.size
        if count <= BUFFERED_EVENTS and size <= BUFFERED_BYTES:
            self._buffer.append(message)
            self._buffered, self._buffered_bytes = count, size

    def _drain_buffer(self) -> list[Event]:
        """Whatever held messages continue from `position`; those behind a hole stay out."""
        fresh: list[Event] = []
        for message in self._buffer:
            if message.first <= self.position + 1:
                fresh += self._take(message)
        self._buffer = [each for each in self._buffer if each.last > self.position]
        self._buffered = sum(len(each.events) for each in self._buffer)
        self._buffered_bytes = sum(each.size for each in self._buffer)
        return fresh

    def _forget_buffer(self) -> None:
        self._buffer, self._buffered, self._buffered_bytes = [], 0, 0

    def _lose(self) -> Step:
        self.phase = Phase.LOST
        self._forget_buffer()
        return Step(lost=True)
