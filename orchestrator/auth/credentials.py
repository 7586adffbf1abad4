"""Where a request carries its token or key (contract, section 7); never logged."""

from dataclasses import dataclass, field

from tornado.httputil import HTTPServerRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request carries. A bearer may be a token or an API key."""

    bearer: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)


def credentials_of(
    request: HTTPServerRequest, *, in_subprotocol: bool = False, in_query: bool = False
) -> Credentials:
    """What a request carries: `Authorization: Bearer`, `X-API-Key`, and, where that transport may,
    the subprotocols `bearer, TOKEN` (WebSocket) or `?token=` (WebSocket and SSE)."""
    raise NotImplementedError
