"""The first page and the client it is made of: plain files, without a build step."""

import re
from pathlib import Path
from typing import Any

from tornado import web

from common.domain.errors import NotFound
from orchestrator.auth.caller import Access
from orchestrator.http.base import ApiHandler

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "orchestrator" / "page"
CLIENT = ROOT / "clients" / "javascript"

NAME = re.compile(r"[\w.-]{1,128}", re.ASCII)
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class FileHandler(ApiHandler, web.StaticFileHandler):
    """Files of one folder, of the kinds a page is made of; nothing below it.

    They are small and sent whole, whatever `Range` says (RFC 9110, 14.2).
    """

    access = Access.OPEN

    def initialize(self, app: Any, path: str, default: str | None = None) -> None:  # type: ignore[override]
        ApiHandler.initialize(self, app)
        web.StaticFileHandler.initialize(self, path)
        self._default = default

    async def get(self, path: str = "", include_body: bool = True) -> None:
        wanted = self._default or path
        if not NAME.fullmatch(wanted) or Path(wanted).suffix not in CONTENT_TYPES:
            raise NotFound
        self.request.headers.pop("Range", None)
        await super().get(wanted, include_body=include_body)

    async def head(self, path: str = "") -> None:
        await self.get(path, include_body=False)

    def get_content_type(self) -> str:
        return CONTENT_TYPES[Path(str(self.absolute_path)).suffix]

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Accept-Ranges", "none")
