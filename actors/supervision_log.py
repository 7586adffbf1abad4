"""What happened to actors: one structured line each, and the newest kept to be shown.

Someone who debugs at night should need nothing else to tell which actor failed, on which message,
why, how often, and what was done about it. Of a message only its type and its identifiers are
written down, never what it says.
"""

import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import structlog

from common.domain.times import now_ms, rfc3339

log = structlog.get_logger("supervision")

Event = Mapping[str, Any]

IDENTIFIERS = ("task_id", "action_id", "tenant_id", "session_id", "session", "connection_id")
MOST_ERROR = 500
MOST_TRACEBACK = 8000
MOST_MESSAGES = 10


class SupervisionLog:
    """Writes lines on the logger `supervision`, and keeps the newest `size` as JSON-ready dicts.

    Events: `actor.started`, `actor.failed`, `actor.restarted`, `actor.escalated`, `actor.stopped`;
    `actor` is the path in the supervision tree, times are those of the contract.
    """

    def __init__(self, size: int = 500) -> None:
        self._kept: deque[Event] = deque(maxlen=size)

    def newest(self, limit: int = 100) -> list[Event]:
        """Up to `limit` events, newest first."""
        return list(islice(reversed(self._kept), max(limit, 0)))

    def started(self, actor: str, actor_class: str) -> None:
        self._record("info", "actor.started", actor, actor_class)

    def restarted(
        self, actor: str, actor_class: str, *, delay_ms: int, restarts: int, mailbox: int
    ) -> None:
        """It runs again; `restarts` counts all since the first start, `mailbox` what goes on."""
        facts = {"delay_ms": delay_ms, "restarts": restarts, "mailbox": mailbox}
        self._record("warning", "actor.restarted", actor, actor_class, **facts)

    def escalated(self, actor: str, actor_class: str, *, reason: str, restarts: int) -> None:
        """Restarting has not helped: it stays down, and those above must act."""
        self._record(
            "critical", "actor.escalated", actor, actor_class, reason=reason, restarts=restarts
        )

    def stopped(self, actor: str, actor_class: str, *, uptime_ms: int, dropped: int) -> None:
        """It was asked to; `dropped` messages still waited."""
        facts = {"uptime_ms": uptime_ms, "dropped": dropped}
        self._record("info", "actor.stopped", actor, actor_class, **facts)

    def failed(
        self,
        actor: str,
        actor_class: str,
        error: BaseException,
        *,
        phase: str,
        messages: Sequence[Any],
        mailbox: int,
        uptime_ms: int,
        restarts: int,
        outcome: str,
    ) -> None:
        """`error` left `phase` (a method's name) while it had these messages in hand.

        `outcome` says what comes of it: `restart`, `ended`, `ignored`, or `contained`: the messages
        failed by themselves, the actor goes on.
        """
        self._record(
            "error",
            "actor.failed",
            actor,
            actor_class,
            phase=phase,
            error_type=type(error).__name__,
            error=_cut(str(error), MOST_ERROR),
            **describe(messages),
            mailbox=mailbox,
            uptime_ms=uptime_ms,
            restarts=restarts,
            outcome=outcome,
            traceback=_traceback(error),
        )

    def _record(self, level: str, event: str, actor: str, actor_class: str, **facts: Any) -> None:
        facts = {"actor": actor, "class": actor_class, **facts}
        self._kept.append({"event": event, "at": rfc3339(now_ms()), "level": level, **facts})
        getattr(log, level)(event, **facts)


unsupervised = SupervisionLog()
"""For actors that were started without a supervisor: they, too, say why they died."""


def describe(messages: Sequence[Any]) -> dict[str, Any]:
    """Types and identifiers of the messages: of one as they are, of several as lists."""
    if not messages:
        return {"message_type": None, "messages": 0}
    types = dict.fromkeys(type(message).__name__ for message in messages)
    facts: dict[str, Any] = {
        "message_type": ", ".join(islice(types, MOST_MESSAGES)),
        "messages": len(messages),
    }
    for field in IDENTIFIERS:
        found = [
            _cut(str(value), 200)
            for message in islice(messages, MOST_MESSAGES)
            if isinstance(value := _identifier(message, field), str | int | tuple)
        ]
        if found:
            facts[field] = found[0] if len(messages) == 1 else found
    return facts


def _identifier(message: Any, field: str) -> Any:
    if isinstance(message, Mapping):
        return message.get(field)
    try:
        return getattr(message, field, None)
    except Exception:  # noqa: BLE001  # a property of a broken message must not hide its failure
        return None


def _traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= MOST_TRACEBACK else "…" + text[-MOST_TRACEBACK:]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"
