"""URL to handler: the table of contents of the API (contract, sections 3 and 4)."""

from collections.abc import Iterable
from typing import Any

from tornado import web
from tornado.routing import _RuleList

from orchestrator.api_docs.document import document
from orchestrator.app import App
from orchestrator.auth.caller import Access
from orchestrator.http import (
    chat,
    dead_letters,
    documents,
    operations,
    pages,
    push,
    sessions,
    usage,
)
from orchestrator.http.base import ApiNotFoundHandler, NotFoundHandler
from orchestrator.socket import NoSessionHandler, SocketHandler


def application(app: App) -> web.Application:
    """All that this service answers, as a server takes it.

    Raises:
        TypeError: a handler does not say what it asks of its callers.
    """
    rules = [*routes(app), *elsewhere(app)]
    check_access([rule[1] for rule in rules if isinstance(rule, tuple)])
    check_access([NotFoundHandler])
    return web.Application(
        rules, default_handler_class=NotFoundHandler, default_handler_args={"app": app}
    )


def check_access(handlers: Iterable[object]) -> None:
    """Each class says it itself, and inherits it from nowhere: nothing is open by accident."""
    for handler in handlers:
        if not isinstance(vars(handler).get("access"), Access):
            raise TypeError(f"{handler} does not say what it asks of its callers (`access`)")


def routes(app: App) -> _RuleList:
    """Every address that this service answers."""
    given: dict[str, Any] = {"app": app}
    page = {**given, "path": str(pages.PAGE)}
    client = {**given, "path": str(pages.CLIENT)}
    openapi = {**given, "document": document(app.schemas.published, app.version)}
    return [
        # For clients
        (r"/api/chat/send", chat.SendHandler, given),
        (r"/api/chat/status", chat.StatusHandler, given),
        (r"/api/chat/cancel", chat.CancelHandler, given),
        (r"/api/sessions/([^/]+)/([^/]+)/events", sessions.EventsHandler, given),
        (r"/ws/([^/]+)/([^/]+)", SocketHandler, given),
        # For back-ends
        (r"/api/ws/send", push.PushHandler, given),
        (r"/api/ws/broadcast", push.BroadcastHandler, given),
        # For operators
        (r"/health", operations.HealthHandler, given),
        (r"/health/ready", operations.ReadyHandler, given),
        (r"/health/detailed", operations.DetailedHealthHandler, given),
        (r"/ws/stats", operations.StatsHandler, given),
        (r"/metrics", operations.MetricsHandler, given),
        (r"/actors", operations.ActorsHandler, given),
        (r"/actors/supervision", operations.SupervisionHandler, given),
        (r"/dead-letters/([^/]+)", dead_letters.LettersHandler, given),
        (r"/dead-letters/([^/]+)/([^/]+)", dead_letters.LetterHandler, given),
        (r"/dead-letters/([^/]+)/([^/]+)/requeue", dead_letters.RequeueHandler, given),
        (r"/usage/([^/]+)", usage.UsageHandler, given),
        # For people, and their programs
        (r"/openapi\.json", documents.DocumentHandler, openapi),
        (r"/", pages.FileHandler, {**page, "default": "index.html"}),
        (r"/page/([^/]+)", pages.FileHandler, page),
        (r"/client/([^/]+)", pages.FileHandler, client),
    ]


def elsewhere(app: App) -> _RuleList:
    """What is beside them where not only operators may hear that nothing is there (section 7)."""
    given: dict[str, Any] = {"app": app}
    return [
        (r"/api(?:/.*)?", ApiNotFoundHandler, given),
        (r"/ws(?:/.*)?", NoSessionHandler, given),
    ]
