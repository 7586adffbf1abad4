"""What a SessionActor writes to: a socket, seen from inside."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Transport(Protocol):
    """One connection's way out. Writing never waits; what waits to be sent can be seen.

    `queued` and `sent` count bytes from the beginning: their difference is the backlog.
    """

    @property
    def queued(self) -> int: ...

    @property
    def sent(self) -> int: ...

    def write(self, frames: Sequence[bytes]) -> None:
        """Sends frames, each one message, in order; those of one loop turn in one write."""

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Calls back once everything queued so far has been sent; at once if it has been."""

    def close(self, code: int, reason: str) -> None:
        """Closes with a code of section 4, after what has been queued. Safe to repeat."""
