"""How often, and how soon, what failed is started again: a pure rule; the clock is the caller's."""

import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `max_restarts` within any `period`, each after a delay. All in seconds."""

    max_restarts: int = 5
    period: float = 60.0
    first_delay: float = 0.05
    max_delay: float = 10.0
    jitter: float = 0.2
    """Up to this part of a delay is taken off, so that what failed together returns apart."""

    def delay(self, restarts: int) -> float:
        """Before the next restart, after so many lately; doubles with each."""
        delay = min(self.max_delay, self.first_delay * 2.0 ** min(restarts, 64))
        return delay * (1 - self.jitter * random.random())  # noqa: S311  # spreads, hides nothing


class Restarts:
    """The restarts of one actor that its policy still remembers."""

    __slots__ = ("_policy", "_recent")

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._recent: deque[float] = deque()

    def next_delay(self, now: float) -> float | None:
        """It failed now: the delay of its restart, which counts from here; None to give it up."""
        recent, policy = self._recent, self._policy
        while recent and recent[0] <= now - policy.period:
            recent.popleft()
        if len(recent) >= policy.max_restarts:
            return None
        delay = policy.delay(len(recent))
        recent.append(now)
        return delay
