"""The WebSocket handler: frames in, frames out, nothing else (contract, section 4)."""

import contextlib
import re
from collections.abc import Awaitable
from typing import Any

import structlog
from pykka import ActorDeadError
from tornado import web, websocket

from actors.connection_manager import Connect
from actors.loop_actor import LoopRef, MailboxFull
from actors.session_messages import CaughtUp, Command, Connection, Refused, Renewed, SocketClosed
from common.domain.errors import (
    BadRequest,
    Draining,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    OrchestratorError,
    OriginNotAllowed,
    Overloaded,
    RateLimited,
    RedisUnavailable,
    Unauthorized,
    ValidationFailed,
)
from common.domain.ids import SessionId, SessionKey, TenantId, UserId, is_outside_id, new_id
from common.domain.resume import ResumeRequest
from orchestrator.admission import Admission
from orchestrator.app import App, ask
from orchestrator.auth.caller import ANYONE, Access
from orchestrator.auth.credentials import Credentials, credentials_of
from orchestrator.auth.permission import tier_of
from orchestrator.frames import Renewal, read_frame, token_of
from orchestrator.http.base import ProblemHandler
from orchestrator.origins import may_connect
from orchestrator.schemas import LARGEST_OFFSET
from orchestrator.token_bucket import TokenBucket
from orchestrator.transport import SocketTransport
from orchestrator.websocket_protocol import StrictProtocol

log = structlog.get_logger(__name__)

VERSION = "13"
KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
SUBPROTOCOLS = ("orchestrator.v1", "bearer")
EPOCH_LENGTH = 128
CROWDED = 100  # messages in a SessionActor's mailbox from which on its socket is read no further

CLOSE_CODES: dict[type[OrchestratorError], int] = {
    BadRequest: 4400,
    ValidationFailed: 4400,
    NotFound: 4400,
    Unauthorized: 4401,
    Forbidden: 4403,
    OriginNotAllowed: 4403,
    Draining: 1012,
    Overloaded: 1013,
    RateLimited: 4429,
    RedisUnavailable: 1013,
}


class SocketHandler(ProblemHandler, websocket.WebSocketHandler):
    """`/ws/{tenant}/{session}`: refused by HTTP, or with `close_codes=1` by a close code."""

    access = Access.CHAT
    _refusal: OrchestratorError | None = None
    _session: LoopRef | None = None
    _is_gone = False

    def initialize(self, app: App) -> None:
        super().initialize(app)
        self._admission = Admission(app, self.request)

    async def prepare(self) -> None:
        try:
            self._admission.check_address()
            await super().prepare()
            self._require_upgrade()
            await self._admit()
        except (OrchestratorError, web.HTTPError) as error:  # the latter: a query not in UTF-8
            self._admission.release()
            if "Upgrade" in self.request.headers:  # else it is no handshake at all
                self._admission.count_refusal(error)
            if not self._takes_close_codes():
                raise
            self._refusal = error if isinstance(error, OrchestratorError) else BadRequest()

    def credentials(self) -> Credentials:
        """Scripts in browsers can set no header, so a token may come by other ways as well."""
        return credentials_of(self.request, in_subprotocol=True, in_query=True)

    def _takes_close_codes(self) -> bool:
        """Whether a refusal is to be told by a close code, as it can be."""
        try:
            self._require_upgrade()
        except OrchestratorError:
            return False
        return self.request.query_arguments.get("close_codes", [b""])[-1] == b"1"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        if self.request.headers.get("Sec-WebSocket-Version") != VERSION:
            self.set_header("Sec-WebSocket-Version", VERSION)

    def _require_upgrade(self) -> None:
        if self.request.method != "GET":
            raise MethodNotAllowed
        if self.request.version == "HTTP/1.0":
            raise BadRequest("WebSocket begins with HTTP/1.1.")
        headers = self.request.headers
        words = {word.strip().lower() for word in headers.get("Connection", "").split(",")}
        if headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in words:
            raise BadRequest("This address speaks WebSocket only.")
        if headers.get("Sec-WebSocket-Version") != VERSION:
            raise BadRequest(f"Only version {VERSION} of WebSocket is spoken here.")
        keys = headers.get_list("Sec-WebSocket-Key")
        if len(keys) != 1 or not KEY.fullmatch(keys[0]):
            raise BadRequest("There must be one `Sec-WebSocket-Key`, of 16 bytes in base64.")

    async def _admit(self) -> None:
        """All that has to hold before the upgrade. Raises what refuses it."""
        self._connection = self._read_request()
        self._check_origin()
        self.caller.check_session(self._connection.session)
        tier_of(self._connection.session.tenant_id, self.app.settings)
        await self._admission.admit(self._connection.session)

    def _read_request(self) -> Connection:
        tenant_id, session_id = self.path_args
        if not (is_outside_id(tenant_id) and is_outside_id(session_id)):
            raise BadRequest("Tenant or session is no id.")
        user_id = self.get_query_argument("user_id", None)
        if user_id is not None and not is_outside_id(user_id):
            raise BadRequest("`user_id` is no id.")
        compact = self.get_query_argument("compact", "0")
        if compact not in ("0", "1"):
            raise BadRequest("`compact` must be 0 or 1.")
        return Connection(
            connection_id=new_id(),
            session=SessionKey(TenantId(tenant_id), SessionId(session_id)),
            user_id=self.caller.user(None if user_id is None else UserId(user_id)),
            request=self._read_resume(),
            compact=compact == "1",
            expires_at=self.caller.expires_at,
        )

    def _read_resume(self) -> ResumeRequest:
        epoch = self.get_query_argument("epoch", None)
        given = self.get_query_argument("offset", None)
        if given is None:
            if epoch is not None:
                raise BadRequest("`epoch` needs `offset`.")
            return ResumeRequest()
        if not (given.isascii() and given.isdigit() and len(given) <= 16):
            raise BadRequest("`offset` must be a whole number.")
        offset = int(given)
        if offset > LARGEST_OFFSET or (epoch is not None and not 0 < len(epoch) <= EPOCH_LENGTH):
            raise BadRequest("`offset` or `epoch` is out of bounds.")
        if offset and epoch is None:
            raise BadRequest("An `offset` other than 0 needs `epoch`.")
        return ResumeRequest(epoch=epoch, offset=offset)

    def _check_origin(self) -> None:
        origin = self.request.headers.get("Origin")
        allowed = self.app.settings.websocket.allowed_origins
        if origin is not None and not may_connect(origin, self.request.host, allowed):
            raise OriginNotAllowed

    def _check_cross_origin(self, check: object) -> None:
        """Tornado's own check, which an `Origin` that is no URL makes fail; `prepare` has ours."""

    def on_finish(self) -> None:
        """The request ended without an upgrade (after one, `on_close` comes instead)."""
        super().on_finish()
        if self.ws_connection is None or self.get_status() != 101:
            self._admission.release()

    # Tornado's settings.

    def get_websocket_protocol(self) -> websocket.WebSocketProtocol | None:
        settings = self.app.settings.websocket
        params = websocket._WebSocketParams(
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
            max_message_size=settings.max_message_bytes,
            compression_options={} if settings.compression else None,
        )
        return StrictProtocol(self, params, TokenBucket(settings.max_frames_per_second))

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((each for each in SUBPROTOCOLS if each in subprotocols), None)

    # The connection.

    async def open(self, *_: str, **__: str) -> None:
        self.set_nodelay(True)
        if self._refusal is not None:
            self.close(_close_code(self._refusal), _fit(self._refusal.detail))
            return
        protocol = self.ws_connection
        if not isinstance(protocol, StrictProtocol):
            raise TypeError(protocol)
        transport = SocketTransport(self, protocol)
        try:
            self.app.refuse_new_work()  # admitted a moment ago, and draining since
            self._session = await ask(self.app.manager, Connect(self._connection, transport))
        except OrchestratorError as error:
            self.close(_close_code(error), _fit(error.detail))
        if self._is_gone:
            self.on_close()

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        if self._session is None:
            return None
        self.app.counters.messages_received += 1
        read = read_frame(message, self._connection, self.app.schemas)
        if isinstance(read, Renewal):
            return self._renew(self._session, read)
        self._tell(self._session, self._permitted(read) if isinstance(read, Command) else read)
        return self._wait_for_room(self._session) if self._session.mailbox > CROWDED else None

    def _permitted(self, command: Command) -> Command | Refused:
        try:
            return Command(command.id, self.permit(command.action))
        except OrchestratorError as error:
            return Refused(command.id, error, is_bad=False)

    async def _renew(self, session: LoopRef, renewal: Renewal) -> None:
        """Looks at a new token; what is said next is read only after that."""
        try:
            if self.caller is ANYONE:
                raise Forbidden("This server asks for no token, so there is none to refresh.")
            shown = Credentials(bearer=token_of(renewal))
            renewed = await self.app.authenticator.authenticate(shown)
            self.caller.check_renewal(renewed)
            renewed.check_access(self.access)
            renewed.check_session(self._connection.session)
        except OrchestratorError as error:
            self._tell(session, Refused(renewal.id, error, is_bad=False))
        else:
            self.caller = renewed
            self._tell(session, Renewed(renewal.id, renewed.expires_at))

    async def _wait_for_room(self, session: LoopRef) -> None:
        """Reads no further until the actor has caught up: a flood waits in its sender."""
        with contextlib.suppress(OrchestratorError):
            await ask(session, CaughtUp())

    def on_close(self) -> None:
        """Tornado calls this once, and before `open` where the client leaves that early."""
        self._is_gone = True
        self._admission.release()
        if self._session is not None:
            self._tell(self._session, SocketClosed())

    def _tell(self, session: LoopRef, message: object) -> None:
        try:
            session.tell(message)
        except ActorDeadError:
            pass  # it closed this connection itself
        except MailboxFull:
            session.stop(drop=True)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        super().log_exception(typ, value, tb)
        if self.ws_connection is not None and not isinstance(value, OrchestratorError):
            self.close(4500, "internal error; come back")


class NoSessionHandler(SocketHandler):
    """`/ws`, or below it what names no session: not found, by HTTP or by a close code."""

    access = Access.CHAT

    def _require_upgrade(self) -> None:
        try:
            super()._require_upgrade()
        except OrchestratorError as error:
            raise NotFound from error

    async def _admit(self) -> None:
        raise NotFound


def _close_code(error: OrchestratorError) -> int:
    """That of its kind, or of the kind that it is one of."""
    codes = (CLOSE_CODES[kind] for kind in type(error).__mro__ if kind in CLOSE_CODES)
    return next(codes, 4500)


def _fit(reason: str) -> str:
    """A close frame has room for 123 bytes of reason."""
    return reason.encode()[:123].decode(errors="ignore")
