"""When a token expires: a moment of the wall clock, awaited by one timer and nothing else."""

import asyncio
import time
from collections.abc import Callable

LONGEST_WAIT = 24 * 3600.0  # seconds; a clock may be set meanwhile, so it is looked at again


class Expiry:
    """Calls once, when the moment has come. Until then it can be moved, and called off."""

    def __init__(self, then: Callable[[], object]) -> None:
        self._then = then
        self._moment: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def at(self, moment: float | None) -> None:
        """Moves it, to unix seconds; to never with None."""
        self.cancel()
        self._moment = moment
        self._wait()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        """Timers go by another clock than tokens do, and may fire a little early."""
        self._timer = None
        if self._moment is None:
            return
        left = self._moment - time.time()
        if left > 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(left, LONGEST_WAIT), self._wait)
        else:
            self._then()
