"""What a tenant's messages are held to: requests, tokens, and tasks that wait (contract, 8).

`lua/_limits.lua` counts and judges, by Redis's clock; here is how it is told, and what it answers.
"""

from collections.abc import Callable

from common.domain.errors import QueueFull, QuotaExceeded, RateLimited, TooMany
from common.domain.ids import TenantId
from common.queues.scripts import Value
from config.settings import TierSettings

REFUSALS: dict[bytes, type[TooMany]] = {
    b"rate_limited": RateLimited,
    b"quota_exceeded": QuotaExceeded,
    b"queue_full": QueueFull,
}

TierOf = Callable[[TenantId], TierSettings | None]
"""What a tenant may use; None for one that is refused."""


def unlimited(_: TenantId) -> TierSettings:
    """For all tenants alike: no limits."""
    return UNLIMITED


UNLIMITED = TierSettings()


def terms_of(tier: TierSettings) -> list[Value]:
    """A tier's limits and weight, in the order in which `lua/submit_task.lua` wants them."""
    limits = (
        tier.requests_per_minute,
        tier.requests_per_hour,
        tier.tokens_per_day,
        tier.max_queued,
        tier.max_running,
    )
    return [*("" if limit is None else limit for limit in limits), tier.weight]


def refusal_of(kind: bytes, limit: int, reset: int) -> TooMany:
    """The limit that a message would exceed, and the seconds until there is room again."""
    return REFUSALS[kind](limit=limit, reset=reset)
