"""A session's log, its channel and one connection, for trying every order in which things happen.

Nothing here does I/O: the test decides what happens next. `Client` is what a SessionActor does with
a `Resume`, and checks at once that what is written is contiguous and never twice.
"""

from collections import deque
from dataclasses import dataclass, field

from common.domain.events import Event
from common.domain.resume import Joined, Phase, Published, Resume, ResumeRequest, Step, join


class Doubt:
    """The bridge was rebuilt."""


@dataclass
class Log:
    """What Redis keeps: offsets from `oldest` to `last`, in the life that `epoch` names."""

    epoch: str = "epoch-1"
    last: int = 0
    oldest: int = 1

    @property
    def oldest_kept(self) -> int:
        return self.oldest if self.oldest <= self.last else 0

    def append(self) -> Published:
        self.last += 1
        return Published(self.epoch, (event(self.epoch, self.last),))

    def page(self, after: int, limit: int) -> tuple[str, int, list[Event]]:
        first = max(after + 1, self.oldest)
        offsets = range(first, min(self.last, first + limit - 1) + 1)
        return self.epoch, self.last, [event(self.epoch, offset) for offset in offsets]


@dataclass
class World:
    """Moves are called by name; `possible` says which have an effect now."""

    log: Log
    request: ResumeRequest
    page_size: int = 2
    channel: deque[Published | Doubt] = field(default_factory=deque)
    is_deaf: bool = False  # something was published that the bridge did not hear
    was_broken: bool = False  # trimmed, or begun anew: the connection may be lost
    wants_page: bool = False
    page: tuple[str, int, list[Event]] | None = None

    def __post_init__(self) -> None:
        oldest = self.log.oldest_kept
        self.joined: Joined = join(self.request, self.log.epoch, self.log.last, oldest)
        self.resume = Resume(self.joined)
        self.written = self.joined.start
        self._do(self.resume.begin())

    # What may happen.

    def possible(self) -> list[str]:
        moves = ["append", "append_unheard", "append_heard_twice", "trim", "begin_anew"]
        if self.is_deaf:
            moves.append("rebuild")
        if self.channel:
            moves.append("hear")
        if self.wants_page and self.page is None:
            moves.append("read")
        if self.page is not None:
            moves.append("turn_page")
        return moves

    def do(self, move: str) -> None:
        getattr(self, move)()

    def append(self) -> None:
        published = self.log.append()
        if not self.is_deaf:  # it hears nothing until it is rebuilt
            self.channel.append(published)

    def append_unheard(self) -> None:
        self.log.append()
        self.is_deaf = True

    def append_heard_twice(self) -> None:
        self.append()
        if not self.is_deaf:
            self.channel.append(self.channel[-1])

    def rebuild(self) -> None:
        self.is_deaf = False
        self.channel.append(Doubt())

    def trim(self) -> None:
        self.log.oldest = min(self.log.oldest + 1, self.log.last + 1)
        self.was_broken = True

    def begin_anew(self) -> None:
        """A log begins anew with its first event; nobody could hear of it before."""
        self.log.epoch, self.log.last, self.log.oldest = f"{self.log.epoch}'", 0, 1
        self.was_broken = True
        self.append()

    def hear(self) -> None:
        message = self.channel.popleft()
        match message:
            case Published():
                self._do(self.resume.published(message))
            case _:
                self._do(self.resume.doubted())

    def read(self) -> None:
        self.page = self.log.page(self.resume.position, self.page_size)

    def turn_page(self) -> None:
        assert self.page is not None
        page, self.page, self.wants_page = self.page, None, False
        self._do(self.resume.page(*page))

    def settle(self) -> None:
        """Nothing more happens from outside; what is under way is done."""
        if self.is_deaf:
            self.rebuild()
        for _ in range(100):
            if self.channel:
                self.hear()
            elif self.page is not None:
                self.turn_page()
            elif self.wants_page and self.resume.phase is not Phase.LOST:
                self.read()
            else:
                return
        raise AssertionError("it reads for ever")

    def check_settled(self) -> None:
        """The client has everything, or was told that it cannot have it."""
        if self.resume.phase is Phase.LOST:
            assert self.was_broken, "lost without a reason"
        else:
            assert self.resume.phase is Phase.LIVE
            assert self.resume.epoch == self.log.epoch
            assert self.resume.position == self.written == self.log.last

    def _do(self, step: Step) -> None:
        for each in step.events:
            assert each.offset == self.written + 1, "a hole, or one twice"
            assert self.joined.epoch is not None
            assert each == event(self.joined.epoch, each.offset), "of another life of the log"
            self.written += 1
        assert self.written == self.resume.position
        if step.read:
            assert not self.wants_page, "one read at a time"
            self.wants_page = True
        assert step.lost == (self.resume.phase is Phase.LOST and step.lost)


def event(epoch: str, offset: int) -> Event:
    return Event(offset, f"{epoch}/{offset}".encode())
