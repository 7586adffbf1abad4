"""What a tenant's messages are held to: requests, tokens, and tasks that wait (contract, 8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.domain.actions import ChatSendMessageAction
from common.domain.errors import (
    Forbidden,
    OrchestratorError,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    TooMany,
)
from common.domain.ids import TenantId
from common.queues.due import member_of
from common.queues.keys import Keys
from common.queues.redis import Redis, unwrap
from common.queues.scripts import ADMIT_MESSAGE, TAKE_BACK, Command, Value
from config.settings import TierSettings

ARRIVING_MS = 10_000  # an admitted message that is not heard of again counts for so long
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


@dataclass(frozen=True, slots=True)
class Admitted:
    """A message that was let in, with what it takes to take that back."""

    action: ChatSendMessageAction
    mark: bytes = b""
    is_first: bool = False  # its request was not counted before


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that exceeds a limit. Where that limit is about tasks that wait, asking again may
    help: once some of them have gone, or once it is known what those who just arrive come to."""

    error: OrchestratorError
    may_go: bool = False
    are_arriving: bool = False


class Admissions:
    """Counts messages against their tenant's limits, across all instances, by Redis's clock."""

    def __init__(self, redis: Redis, keys: Keys, tier_of: TierOf) -> None:
        self._redis = redis
        self._keys = keys
        self._tier_of = tier_of

    async def admit(self, actions: Sequence[ChatSendMessageAction]) -> list[Admitted | Refused]:
        """Lets messages in, or refuses them; one script call each, all in one go.

        A message whose Idempotency-Key is known is let in whatever the limits: it will be answered
        by its first answer, and runs nothing.
        """
        commands: list[Command] = []
        for action in actions:
            commands.append(("EXISTS", self._known_by(action)))
            commands.append(self._admission(action, self._tier_of(action.tenant_id) or UNLIMITED))
        replies = [unwrap(each) for each in await self._redis.batch(commands)]
        return [
            self._outcome(action, bool(is_known), reply)
            for action, is_known, reply in zip(actions, replies[::2], replies[1::2], strict=True)
        ]

    def _known_by(self, action: ChatSendMessageAction) -> str:
        if action.idempotency_key is None:
            return self._keys.task_session(action.task_id)  # a new one: it is not known
        return self._keys.idempotency(action.session, action.idempotency_key)

    def _admission(self, action: ChatSendMessageAction, tier: TierSettings) -> Command:
        tenant_id = action.tenant_id
        return ADMIT_MESSAGE.call(
            [
                self._keys.tenant(tenant_id, "terms"),
                self._keys.tenant(tenant_id, "arriving"),
                self._keys.tenant(tenant_id, "held"),
                *self._keys.lines(tenant_id),
                self._keys.tenant(tenant_id, "running"),
                self._keys.tenant(tenant_id, "requests"),
                self._keys.usage(tenant_id, ""),
            ],
            member_of(action.session, action.task_id),
            _request(action),
            *map(
                _limit,
                (
                    tier.requests_per_minute,
                    tier.requests_per_hour,
                    tier.tokens_per_day,
                    tier.max_queued,
                    tier.max_running,
                ),
            ),
            tier.weight,
            ARRIVING_MS,
        )

    def _outcome(
        self, action: ChatSendMessageAction, is_known: bool, reply: Sequence[Any]
    ) -> Admitted | Refused:
        if self._tier_of(action.tenant_id) is None:
            return Refused(Forbidden("This tenant is not served here."))
        if reply[0] == b"admitted":
            return Admitted(action, mark=reply[1], is_first=bool(reply[2]))
        if is_known:
            return Admitted(action)
        kind, limit, reset, change = reply
        error = REFUSALS[kind](limit=limit, reset=reset)
        return Refused(error, may_go=bool(change & 1), are_arriving=bool(change & 2))

    async def take_back(self, needless: Sequence[tuple[Admitted, bool]]) -> None:
        """For messages that were let in and made no task: they no longer wait, nor count.

        Beside each, whether it repeats one that was taken: then the request counts, unless that
        was so long ago that it was counted anew.
        """
        commands = [
            TAKE_BACK.call(
                [
                    self._keys.tenant(each.action.tenant_id, "arriving"),
                    self._keys.tenant(each.action.tenant_id, "requests"),
                ],
                member_of(each.action.session, each.action.task_id),
                _request(each.action),
                each.mark if each.is_first or not is_repetition else "",
            )
            for each, is_repetition in needless
        ]
        for result in await self._redis.batch(commands):
            unwrap(result)


def _request(action: ChatSendMessageAction) -> str:
    """What repetitions of a message have in common, so that they count as one."""
    if action.idempotency_key is None:
        return action.task_id
    return f"{action.session_id}:{action.idempotency_key}"


def _limit(limit: int | None) -> Value:
    return "" if limit is None else limit
