"""Where requests carry tokens and keys."""

from typing import Any
from urllib.parse import quote

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from common.domain.errors import Unauthorized
from orchestrator.auth.credentials import Credentials, credentials_of


class Connection:
    """What a request of Tornado asks of its connection."""

    context = None


def request(*headers: tuple[str, str], path: str = "/ws/a/b") -> HTTPServerRequest:
    """A request as Tornado makes one of what was received."""
    connection: Any = Connection()
    received = HTTPHeaders({"Host": "localhost"})
    for name, value in headers:
        received.add(name, value)
    return HTTPServerRequest(
        connection=connection,
        start_line=RequestStartLine("GET", path, "HTTP/1.1"),
        headers=received,
    )


def everywhere(asked: HTTPServerRequest) -> Credentials:
    return credentials_of(asked, in_subprotocol=True, in_query=True)


@pytest.mark.parametrize(
    "asked",
    [
        request(("Authorization", "Bearer a.b.c")),
        request(("Authorization", "bearer a.b.c")),
        request(("Authorization", "BEARER   a.b.c")),
        request(("Sec-WebSocket-Protocol", "bearer, a.b.c")),
        request(("Sec-WebSocket-Protocol", "orchestrator.v1,bearer,a.b.c")),
        request(("Sec-WebSocket-Protocol", "bearer"), ("Sec-WebSocket-Protocol", "a.b.c, other")),
        request(path="/ws/a/b?offset=0&token=a.b.c"),
    ],
)
def test_a_bearer_is_found_in_each_place(asked: HTTPServerRequest) -> None:
    assert everywhere(asked) == Credentials(bearer="a.b.c")


def test_an_api_key_has_a_header_of_its_own() -> None:
    assert credentials_of(request(("X-API-Key", "k-1"))) == Credentials(api_key="k-1")
    assert credentials_of(request(("x-api-key", "k-1"))) == Credentials(api_key="k-1")


def test_nothing_given_is_nothing_found() -> None:
    for asked in (request(), request(("Sec-WebSocket-Protocol", "orchestrator.v1"))):
        assert everywhere(asked) == Credentials()


def test_other_schemes_are_left_alone() -> None:
    for value in ("Basic dXNlcjpwdw==", "Digest a=b, c=d", "Negotiate", "Bearer2 a"):
        asked = request(("Authorization", value), path="/?token=t")
        assert everywhere(asked) == Credentials(bearer="t")


def test_the_header_counts_before_the_subprotocol_and_that_before_the_query() -> None:
    header, subprotocol = ("Authorization", "Bearer h"), ("Sec-WebSocket-Protocol", "bearer, s")
    assert everywhere(request(header, subprotocol, path="/?token=q")).bearer == "h"
    assert everywhere(request(subprotocol, path="/?token=q")).bearer == "s"
    assert everywhere(request(header, ("X-API-Key", "k"))) == Credentials(bearer="h", api_key="k")


def test_a_token_counts_only_where_the_transport_may_carry_it() -> None:
    asked = request(("Sec-WebSocket-Protocol", "bearer, s"), path="/?token=q")
    assert credentials_of(asked) == Credentials()
    assert credentials_of(asked, in_query=True).bearer == "q"
    assert credentials_of(asked, in_subprotocol=True).bearer == "s"


@pytest.mark.parametrize(
    "asked",
    [
        request(("Authorization", "Bearer a"), ("Authorization", "Bearer a")),
        request(("Authorization", "Bearer a"), ("Authorization", "Basic b")),
        request(("X-API-Key", "a"), ("X-API-Key", "b")),
        request(path="/?token=a&token=a"),
        request(("Sec-WebSocket-Protocol", "bearer, a, bearer, b")),
        request(("Sec-WebSocket-Protocol", "bearer, a"), ("Sec-WebSocket-Protocol", "bearer, a")),
        request(("Authorization", "Bearer good"), path="/?token=a&token=b"),
    ],
)
def test_what_is_given_twice_is_refused(asked: HTTPServerRequest) -> None:
    with pytest.raises(Unauthorized):
        everywhere(asked)


@pytest.mark.parametrize(
    "asked",
    [
        request(("Authorization", "Bearer")),
        request(("Authorization", "Bearer a b")),
        request(("Authorization", "Bearer a\tb")),
        request(("Authorization", "Bearer töken")),
        request(("X-API-Key", "")),
        request(("X-API-Key", "a b")),
        request(("Sec-WebSocket-Protocol", "bearer")),
        request(("Sec-WebSocket-Protocol", "bearer,")),
        request(("Sec-WebSocket-Protocol", "bearer, , a")),
        request(path="/?token="),
        request(path="/?token=a%20b"),
        request(path="/?token=a%00b"),
        request(path="/?token=%ff%fe"),
        request(path=f"/?token={quote('tökèn')}"),
        request(path="/?token=a%0d%0ab"),
    ],
)
def test_what_is_no_token_by_its_looks_is_refused(asked: HTTPServerRequest) -> None:
    with pytest.raises(Unauthorized) as caught:
        everywhere(asked)
    assert caught.value.detail == "The token or key is not given as it must be."


def test_credentials_are_never_shown() -> None:
    shown = repr(Credentials(bearer="canary-1", api_key="canary-2"))
    assert "canary" not in shown
