"""What all REST handlers share: who calls, request ids, bodies, problem+json, limits."""

import re
import sys
from typing import Any, ClassVar, NoReturn

import structlog
from tornado import iostream, web

from common.domain.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    OrchestratorError,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)
from common.domain.ids import new_id
from orchestrator.app import REQUEST_ID, App
from orchestrator.auth.caller import ANYONE, Access, Caller
from orchestrator.auth.credentials import Credentials, credentials_of
from orchestrator.auth.permission import Action, permitted
from orchestrator.problems import CONTENT_TYPE, headers_of, problem_body
from orchestrator.schemas import parse_object

log = structlog.get_logger(__name__)


# May be told twice, if it is the same; where it is not, or no number, Tornado refuses it.
LENGTH = re.compile(r"0*([0-9]{1,19})\s*(?:,|$)")
JSON_TYPE = re.compile(r"application/(?:[a-z0-9!#$&^_.+-]+\+)?json")

ERRORS_BY_STATUS: dict[int, type[OrchestratorError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
}

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class ProblemHandler(web.RequestHandler):
    """Answers errors as problem+json; every response carries `X-Request-ID`.

    Each handler says by `access` what it asks of its callers; there is no default. `caller` is who
    calls, known before anything else happens; what is open to all does not ask.
    """

    access: ClassVar[Access]
    caller: Caller

    def initialize(self, app: App) -> None:
        self.app = app
        app.requests.add(self)

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """What is no UTF-8 in the path becomes an id that is none: who calls is asked first."""
        if name is None:  # parts of the path have no names
            return value.decode(errors="replace")
        return super().decode_argument(value, name)

    async def prepare(self) -> None:
        if self.access is not Access.OPEN:
            self.caller = await self._who()
            self.caller.check_access(self.access)

    async def _who(self) -> Caller:
        authenticator = self.app.authenticator
        if authenticator.is_open:
            return ANYONE  # whatever the request carries, it is not looked at
        return await authenticator.authenticate(self.credentials())

    def credentials(self) -> Credentials:
        """What says who calls."""
        return credentials_of(self.request)

    def permit(self, action: Action) -> Action:
        """The action, as the caller may have it done."""
        return permitted(action, self.caller, self.app.settings)

    def on_finish(self) -> None:
        self.app.requests.discard(self)

    def on_connection_close(self) -> None:
        self.app.requests.discard(self)
        super().on_connection_close()

    def set_default_headers(self) -> None:
        # Called again for an error: what was logged and what is answered have to be one id.
        if not hasattr(self, "request_id"):
            given = self.request.headers.get("X-Request-ID", "")
            self.request_id = given if REQUEST_ID.fullmatch(given) else new_id()
        self.set_header("Server", "agent-orchestrator")
        self.set_header("X-Request-ID", self.request_id)
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Tornado's way out for all that was raised; ours decides by the error itself."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        if self._headers_written:
            super().send_error(status_code, **kwargs)
            return
        error = _meaning_of(raised, status_code)
        self.clear()
        self.set_status(error.http_status)
        self.set_header("Content-Type", CONTENT_TYPE)
        for name, value in headers_of(error).items():
            self.set_header(name, value)
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", ", ".join(self.methods()))
        self.finish(problem_body(error, self.request_id))

    @classmethod
    def methods(cls) -> list[str]:
        """What this address knows."""
        unimplemented = web.RequestHandler._unimplemented_method
        return [
            method
            for method in cls.SUPPORTED_METHODS
            if getattr(cls, method.lower()) is not unimplemented
        ]

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """A refusal, or a client that is gone, is no news; anything else is a mistake of ours."""
        if isinstance(value, OrchestratorError | web.HTTPError | iostream.StreamClosedError):
            return
        log.error(
            "request.failed",
            method=self.request.method,
            path=self.request.path,
            request_id=self.request_id,
            exc_info=(typ, value, tb),
        )

    def answer(self, status: int, body: bytes) -> None:
        """Ends the request with a JSON body."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(body)


def _meaning_of(raised: BaseException | None, status: int) -> OrchestratorError:
    if isinstance(raised, OrchestratorError):
        return raised
    if isinstance(raised, web.HTTPError):
        status = raised.status_code
    made = ERRORS_BY_STATUS.get(status)
    return made() if made else InternalError()


@web.stream_request_body
class ApiHandler(ProblemHandler):
    """A handler with a JSON body, read under the limit of `server.max_body_bytes`.

    Who is asked by GET is asked by HEAD too (RFC 9110, 9.1); Tornado leaves the body away.
    """

    def __init_subclass__(cls) -> None:
        if "get" in vars(cls) and "head" not in vars(cls):
            cls.head = cls.get

    def initialize(self, app: App) -> None:
        super().initialize(app)
        self._chunks: list[bytes] = []
        self._received = 0
        self._refusal: OrchestratorError | None = None

    async def prepare(self) -> None:
        # Counted here, to answer 413 instead of hanging up as Tornado does.
        self.request.connection.set_max_body_size(sys.maxsize)  # type: ignore[union-attr]
        headers = self.request.headers
        declared = LENGTH.match(headers.get("Content-Length", ""))
        is_large = declared is not None and int(declared[1]) > self._limit
        if self.request.version == "HTTP/1.0":
            headers.pop("Expect", None)  # to be ignored there (RFC 9110, 10.1.1)
        is_asking = "Expect" in headers  # the client waits for a word before it sends anything
        if is_asking:  # in any case of letters, but Tornado knows one only
            headers["Expect"] = headers["Expect"].lower()
        try:
            await super().prepare()
        except OrchestratorError as error:
            if is_large or is_asking or "Transfer-Encoding" in headers:
                raise  # and hang up: what may be long is not read from just anybody
            self._refuse(error)
        if is_large:
            if is_asking:
                raise PayloadTooLarge
            self._refuse_body()

    def _refuse(self, error: OrchestratorError) -> None:
        """Answers once the body has been read away, so that the connection can be used again."""

        def refuse(*_: str) -> NoReturn:
            raise error

        self._refusal = error
        setattr(self, str(self.request.method).lower(), refuse)

    @property
    def _limit(self) -> int:
        return self.app.settings.server.max_body_bytes

    def data_received(self, chunk: bytes) -> None:
        """Keeps a body up to the limit."""
        if self._refusal is not None:
            return
        self._received += len(chunk)
        if self._received <= self._limit:
            self._chunks.append(chunk)
        elif not self._headers_written:
            self._refuse_body()

    def _refuse_body(self) -> None:
        """Answers at once, and lets the rest be read away: who still sends hears the answer."""
        error = PayloadTooLarge(f"The body may have {self._limit} bytes.")
        body = problem_body(error, self.request_id)
        self._chunks.clear()
        self.set_status(error.http_status)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.set_header("Content-Length", str(len(body)))
        self.write(body)
        self.flush()
        # What would have handled the body has only to end the answer once that is read.
        setattr(self, str(self.request.method).lower(), lambda *_: self.finish())

    def json_body(self) -> dict[str, Any]:
        """The body as an object.

        Raises:
            UnsupportedMediaType, MalformedJson, ValidationFailed.
        """
        self._check_media_type()
        return parse_object(b"".join(self._chunks))

    def _check_media_type(self) -> None:
        given = self.request.headers.get("Content-Type")
        if given is not None and not _is_json(given):
            raise UnsupportedMediaType
        if self.request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("The body must not be compressed.")

    def query_number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from the query.

        Raises:
            ValidationFailed.
        """
        given = self.get_query_argument(name, None)
        if given is None:
            return default
        if not (given.isascii() and given.isdigit() and len(given) <= 16):
            raise ValidationFailed(errors={name: ["Not a whole number."]})
        number = int(given)
        if not least <= number <= most:
            raise ValidationFailed(errors={name: [f"Must be from {least} to {most}."]})
        return number


def _is_json(content_type: str) -> bool:
    """Whether a media type is JSON, in UTF-8; its other parameters make no difference."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    given = (parameter.partition("=") for parameter in parameters)
    # `charset*` and `charset*0` are ways of RFC 2231 to say the same; nobody has to say it so.
    charsets = [value for name, _, value in given if name.partition("*")[0].rstrip() == "charset"]
    is_utf8 = all(value.strip().strip('"') in ("utf-8", "utf8") for value in charsets)
    return JSON_TYPE.fullmatch(kind) is not None and is_utf8


class NotFoundHandler(ApiHandler):
    """There is nothing at this address, whatever the method."""

    access = Access.ADMIN

    def _find_nothing(self) -> None:
        raise NotFound

    get = head = post = put = patch = delete = options = _find_nothing


class ApiNotFoundHandler(NotFoundHandler):
    """There is nothing at this address below `/api`, as whoever is known may hear."""

    access = Access.KNOWN
