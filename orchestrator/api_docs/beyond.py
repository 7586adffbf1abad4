"""Addresses beyond section 3, for completeness: the WebSocket's upgrade, and the page's files."""

from common.domain import errors
from orchestrator.api_docs import parameters as given
from orchestrator.api_docs.operation import Answer, Operation
from orchestrator.http import pages
from orchestrator.socket import SocketHandler

CONNECT = Operation(
    tag="WebSocket",
    method="get",
    path="/ws/{tenant_id}/{session_id}",
    handler=SocketHandler,
    summary="Open a WebSocket of a session",
    text=(
        "Refused by HTTP as said here or, with `close_codes=1`, upgraded and closed at once with a"
        " code. What is said over the connection is not part of this document."
    ),
    parameters=(
        *(given.TENANT, given.SESSION, *given.RESUME, given.USER, given.COMPACT),
        *(given.TOKEN, given.CLOSE_CODES),
    ),
    answers={101: Answer("The connection is a WebSocket now.", media_types=())},
    errors=(
        *(errors.OriginNotAllowed, errors.RateLimited, errors.RedisUnavailable, errors.Draining),
        errors.Overloaded,
    ),
)

FILE_TYPES = ("text/html", "text/javascript", "text/css", "image/svg+xml")
FILES = [
    Operation(
        tag="Page",
        method="get",
        path=path,
        handler=pages.FileHandler,
        summary=summary,
        parameters=parameters,
        answers={200: Answer("The file.", media_types=FILE_TYPES)},
        errors=(errors.NotFound,) if parameters else (),
    )
    for path, summary, parameters in (
        ("/", "The first page", ()),
        ("/page/{file}", "What the first page is made of", (given.FILE,)),
        ("/client/{file}", "The JavaScript client", (given.FILE,)),
    )
]
