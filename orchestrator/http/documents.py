"""`GET /openapi.json`: this service's own description, made once at the start (section 3)."""

from orchestrator.app import App
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler


class DocumentHandler(ApiHandler):
    """A JSON document that stays as it is while the process lives."""

    access = Access.OPEN

    def initialize(self, app: App, document: bytes) -> None:  # type: ignore[override]
        super().initialize(app)
        self._document = document

    def get(self) -> None:
        self.set_header("Cache-Control", "no-cache")  # kept, and asked for by its ETag
        self.answer(200, self._document)
