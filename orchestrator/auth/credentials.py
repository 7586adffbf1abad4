"""Where a request carries its token or key (contract, section 7); never logged.

A bearer is looked for in this order, and the first place that has one counts:

1. `Authorization: Bearer …`; other schemes are not ours, and are left alone;
2. for WebSocket, the subprotocols `bearer, TOKEN`;
3. for WebSocket and SSE, `?token=`.

`X-API-Key` counts where there is no bearer. A bearer that is not good is not made up for by what
stands after it. Whatever is given has to be given once and well-formed, even if it would not count.
"""

import re
from dataclasses import dataclass, field

from tornado.httputil import HTTPServerRequest

from common.domain.errors import Unauthorized

VISIBLE = re.compile(r"[!-~]+")  # what tokens and keys are made of
BEARER = "bearer"


class BadCredentials(Unauthorized):
    """A valid token or key is needed.

    `reason` is a word for our logs; callers get the `detail`, which tells nothing that would help
    to guess.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a request carries. A bearer may be a token or an API key."""

    bearer: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)


def credentials_of(
    request: HTTPServerRequest, *, in_subprotocol: bool = False, in_query: bool = False
) -> Credentials:
    """What a request carries: `Authorization: Bearer`, `X-API-Key`, and, where that transport may,
    the subprotocols `bearer, TOKEN` (WebSocket) or `?token=` (WebSocket and SSE).

    Raises:
        Unauthorized: something is given twice, or is no token or key by its looks.
    """
    bearers = [_in_authorization(request)]
    if in_subprotocol:
        bearers.append(_in_subprotocols(request))
    if in_query:
        bearers.append(_in_query(request))
    return Credentials(
        bearer=next((bearer for bearer in bearers if bearer is not None), None),
        api_key=_the_one(request.headers.get_list("X-API-Key")),
    )


def _in_authorization(request: HTTPServerRequest) -> str | None:
    header = _the_one(request.headers.get_list("Authorization"), check=False)
    if header is None:
        return None
    scheme, _, bearer = header.partition(" ")
    return _the_one([bearer.strip(" ")]) if scheme.lower() == BEARER else None


def _in_subprotocols(request: HTTPServerRequest) -> str | None:
    """The subprotocol that follows `bearer`; which of them is answered is the socket's business."""
    offered = [
        word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    ]
    if BEARER not in offered:
        return None
    if offered.count(BEARER) > 1:
        raise _malformed()
    return _the_one(offered[offered.index(BEARER) + 1 :][:1] or [""])


def _in_query(request: HTTPServerRequest) -> str | None:
    given = request.query_arguments.get("token", [])
    return _the_one([value.decode("latin-1") for value in given])


def _the_one(given: list[str], *, check: bool = True) -> str | None:
    """The only value, or None where there is none."""
    if not given:
        return None
    if len(given) > 1 or (check and not VISIBLE.fullmatch(given[0])):
        raise _malformed()
    return given[0]


def _malformed() -> BadCredentials:
    return BadCredentials("malformed", "The token or key is not given as it must be.")
