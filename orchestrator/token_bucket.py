"""A rate, kept with two numbers: so much a second, and a second's worth at once."""

import time
from collections.abc import Callable


class TokenBucket:
    """Fills at `per_second` up to as many tokens; None never runs dry."""

    __slots__ = ("_clock", "_filled_at", "_per_second", "_tokens")

    def __init__(
        self, per_second: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._tokens = per_second or 0.0
        self._filled_at = clock()

    def take(self) -> bool:
        """Takes a token; False if there is none."""
        if self._per_second is None:
            return True
        now = self._clock()
        filled = self._tokens + (now - self._filled_at) * self._per_second
        self._filled_at = now
        self._tokens = min(filled, self._per_second)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
