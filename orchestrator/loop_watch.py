"""How late the event loop is: whatever blocks it keeps everybody waiting, and has to be seen.

A timer is due every 20 ms; by as much as it comes late the loop stood still, give or take one
period. That is so for a slow piece of our own code, for a call that blocks, for a collection of
garbage, and for a process that was stopped or got no processor. The processor time used meanwhile
tells the first from the others: it is near the length of the stall, or near nothing.
"""

import asyncio
import time
from bisect import bisect_left

import structlog

log = structlog.get_logger(__name__)

EVERY = 0.02  # seconds between two looks
LOGGED_FROM = 0.1  # seconds; less is in the metrics only
UNREADY_FROM = 1.0  # seconds; who stands still that long had better get no new traffic ...
UNREADY_FOR = 3.0  # ... for some seconds
BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)  # seconds; above the last there is one more


class LoopWatch:
    """Watches the loop that it is started on. Counts since the start, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0  # that the loop was late
        self.busiest = 0.0  # that it was late by its own work
        self.total = 0.0
        self.counts = [0] * (len(BUCKETS) + 1)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._used = 0.0
        self._stalled_at = -UNREADY_FOR

    def start(self) -> None:
        self._used = time.thread_time()
        self._wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_shaken(self) -> bool:
        """Whether the loop has stood still for long a moment ago."""
        return time.monotonic() - self._stalled_at < UNREADY_FOR

    def _wait(self) -> None:
        self._due = time.monotonic() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)

    def _look(self) -> None:
        now, used = time.monotonic(), time.thread_time()
        self._record(max(0.0, now - self._due), used - self._used, now)
        self._used = used
        self._wait()

    def _record(self, late: float, busy: float, now: float) -> None:
        self.counts[bisect_left(BUCKETS, late)] += 1
        self.total += late
        self.longest = max(self.longest, late)
        self.busiest = max(self.busiest, min(late, busy))
        if late >= UNREADY_FROM:
            self._stalled_at = now
        if late >= LOGGED_FROM:
            log.warning("loop.stalled", ms=round(late * 1000), cpu_ms=round(busy * 1000))
