"""Every address of the contract that this version serves is there, each once."""

import re

import pytest

from orchestrator.auth.caller import Access
from orchestrator.http.base import NotFoundHandler, ProblemHandler
from orchestrator.http.operations import HealthHandler
from orchestrator.routes import application, check_access, routes
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

ADDRESSES = [
    *("/api/chat/send", "/api/chat/status", "/api/chat/cancel", "/api/sessions/acme/s-1/events"),
    *("/ws/acme/s-1", "/api/ws/send", "/api/ws/broadcast", "/health", "/health/ready"),
    *("/health/detailed", "/ws/stats", "/metrics", "/actors", "/actors/supervision", "/"),
    *("/dead-letters/execute", "/dead-letters/execute/1-0", "/dead-letters/callbacks/1-0/requeue"),
]


async def test_each_address_has_one_handler_that_answers_problems(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        rules = [rule for rule in routes(service.service.app) if isinstance(rule, tuple)]
        for address in ADDRESSES:
            matching = [rule for rule in rules if re.fullmatch(str(rule[0]), address)]
            assert len(matching) == 1, address
            handler = matching[0][1]
            assert isinstance(handler, type)
            assert issubclass(handler, ProblemHandler)


def test_a_handler_that_says_not_what_it_asks_for_is_refused_at_the_start() -> None:
    class Silent(ProblemHandler):
        """Says nothing."""

    class Inherits(HealthHandler):
        """Says nothing itself."""

    class Wrong(ProblemHandler):
        access = "open"  # type: ignore[assignment]

    for handler in (Silent, Inherits, Wrong):
        with pytest.raises(TypeError, match=handler.__name__):
            check_access([HealthHandler, handler])


async def test_what_is_at_no_address_is_for_operators_to_know(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        made = application(service.service.app)
        assert made.settings["default_handler_class"] is NotFoundHandler
        assert NotFoundHandler.access is Access.ADMIN
