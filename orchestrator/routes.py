"""URL to handler: the table of contents of the API (contract, sections 3 and 4)."""

from typing import Any

from tornado.routing import _RuleList

from orchestrator.app import App
from orchestrator.http import chat, dead_letters, operations, pages, push, sessions
from orchestrator.socket import SocketHandler


def routes(app: App) -> _RuleList:
    """Every address that this service answers."""
    given: dict[str, Any] = {"app": app}
    page = {**given, "path": str(pages.PAGE)}
    client = {**given, "path": str(pages.CLIENT)}
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
        # For people
        (r"/", pages.FileHandler, {**page, "default": "index.html"}),
        (r"/page/([^/]+)", pages.FileHandler, page),
        (r"/client/([^/]+)", pages.FileHandler, client),
    ]
