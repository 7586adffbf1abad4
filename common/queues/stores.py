"""All that is kept in Redis, put together once: the service and the tests take it from here."""

from dataclasses import dataclass

from common.queues.actions import ActionQueue
from common.queues.admissions import TierOf, unlimited
from common.queues.callbacks import CallbackQueue
from common.queues.dead_letters import DeadLetters
from common.queues.due import DueTimes
from common.queues.ends import Ends
from common.queues.instances import Instances
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.session_calls import SessionCalls
from common.queues.session_log import SessionLog
from common.queues.submissions import Submissions
from common.queues.tasks import TaskLimits, TaskStore
from common.queues.turns import Turns
from common.queues.usage import Usage
from common.queues.watch import TaskWatch
from common.queues.work import WorkQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """What the stores are held to. Seconds and bytes."""

    max_events: int = 10_000
    ttl: float = 86_400
    max_attempts: int = 3
    visibility_timeout: float = 60
    retry_backoff: float = 1
    cancel_grace: float = 10
    max_wait: float = 3600
    gap_timeout: float = 90
    max_callback_bytes: int = 1_048_576
    prefetch: int = 16
    tier_of: TierOf = unlimited
    max_parked: int = 10_000  # callbacks that may wait for one task's gap
    max_parked_bytes: int = 8 * 1024 * 1024


class Stores:
    """One instance's stores, under one prefix."""

    def __init__(
        self, redis: Redis, prefix: str, consumer: str, settings: StoreSettings | None = None
    ) -> None:
        settings = settings or StoreSettings()
        limits = TaskLimits(
            max_attempts=settings.max_attempts,
            visibility_timeout_ms=_ms(settings.visibility_timeout),
            cancel_grace_ms=_ms(settings.cancel_grace),
            max_wait_ms=_ms(settings.max_wait),
        )
        self.redis = redis
        self.keys = keys = Keys(prefix)
        self.limits = limits
        self.calls = SessionCalls(keys, max_events=settings.max_events, ttl=settings.ttl)
        self.due = DueTimes(redis, keys)
        self.letters = DeadLetters(redis, keys)
        self.work = WorkQueue(redis, keys, self.letters)
        self.turns = Turns(redis, keys, self.due, prefetch=settings.prefetch)
        self.ends = Ends(redis, keys, self.due, self.turns, ttl=settings.ttl)
        self.usage = Usage(redis, keys)
        self.tasks = TaskStore(redis, keys, self.calls, self.due, self.ends, limits)
        self.submissions = Submissions(
            redis,
            keys,
            self.calls,
            self.turns,
            self.tasks,
            limits,
            settings.tier_of,
        )
        self.watch = TaskWatch(
            redis,
            keys,
            self.calls,
            self.due,
            self.tasks,
            self.turns,
            self.ends,
            gap_timeout_ms=_ms(settings.gap_timeout),
        )
        self.log = SessionLog(redis, keys, self.calls)
        self.pushes = ActionQueue(redis, keys, self.letters, consumer=consumer)
        self.callbacks = CallbackQueue(
            redis,
            keys,
            self.calls,
            self.due,
            self.turns,
            self.ends,
            self.letters,
            consumer=consumer,
            max_bytes=settings.max_callback_bytes,
            max_attempts=settings.max_attempts,
            gap_timeout_ms=_ms(settings.gap_timeout),
            retry_backoff_ms=_ms(settings.retry_backoff),
            max_parked=settings.max_parked,
            max_parked_bytes=settings.max_parked_bytes,
        )
        self.instances = Instances(redis, keys)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
