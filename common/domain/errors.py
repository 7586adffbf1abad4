"""Every error a caller can see: one hierarchy for REST, WebSocket and logs (contract, section 3).

The class docstring is the default message; `code` never gets a second meaning.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

FieldErrors = Mapping[str, Sequence[str]]


class OrchestratorError(Exception):
    """Something went wrong inside the orchestrator."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    temporary: ClassVar[bool] = False

    def __init__(self, detail: str | None = None, *, errors: FieldErrors | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or self.code).splitlines()[0]
        self.errors = errors
        super().__init__(self.detail)


class TemporaryError(OrchestratorError):
    """The same request may succeed later."""

    temporary = True

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooMany(TemporaryError):
    """More was asked for than the limits allow; the headers of the answer say when to come back.

    `limit`: how much is allowed; `remaining`: what is left of it; `reset`: seconds until there is
    more. They are told as `RateLimit-Limit`, `-Remaining` and `-Reset` (contract, section 3).
    """

    code, http_status = "rate_limited", 429

    def __init__(
        self, detail: str | None = None, *, limit: int, remaining: int = 0, reset: int = 1
    ) -> None:
        super().__init__(detail, retry_after=max(1, reset))
        self.limit = limit
        self.remaining = remaining
        self.reset = reset


class RateLimited(TooMany):
    """Too many requests for now."""

    code = "rate_limited"


class QuotaExceeded(TooMany):
    """The tenant's tokens of this day are used up."""

    code = "quota_exceeded"


class QueueFull(TooMany):
    """As many tasks of the tenant wait as may."""

    code = "queue_full"


class MalformedJson(OrchestratorError):
    """The body is not JSON."""

    code, http_status = "malformed_json", 400


class BadRequest(OrchestratorError):
    """The request cannot be understood."""

    code, http_status = "bad_request", 400


class Unauthorized(OrchestratorError):
    """A valid token or key is needed."""

    code, http_status = "unauthorized", 401


class Forbidden(OrchestratorError):
    """The caller may not do this."""

    code, http_status = "forbidden", 403


class OriginNotAllowed(OrchestratorError):
    """Pages of this origin may not connect."""

    code, http_status = "origin_not_allowed", 403


class NotFound(OrchestratorError):
    """There is nothing at this address."""

    code, http_status = "not_found", 404


class TaskNotFound(OrchestratorError):
    """No task of this tenant has that id."""

    code, http_status = "task_not_found", 404


class AgentNotFound(OrchestratorError):
    """No agent of that name serves this tenant."""

    code, http_status = "agent_not_found", 404


class MethodNotAllowed(OrchestratorError):
    """This address does not know that method."""

    code, http_status = "method_not_allowed", 405


class IdempotencyConflict(OrchestratorError):
    """This Idempotency-Key was used in this session with another body."""

    code, http_status = "idempotency_conflict", 409


class SessionBusy(OrchestratorError):
    """The session already has a task that has not ended."""

    code, http_status = "session_busy", 409


class TaskAlreadyFinished(OrchestratorError):
    """The task has already ended."""

    code, http_status = "task_already_finished", 409


class EpochChanged(OrchestratorError):
    """The session's log has begun anew since that epoch."""

    code, http_status = "epoch_changed", 409


class PayloadTooLarge(OrchestratorError):
    """The body is larger than this server takes."""

    code, http_status = "payload_too_large", 413


class UnsupportedMediaType(OrchestratorError):
    """The body must be JSON."""

    code, http_status = "unsupported_media_type", 415


class ValidationFailed(OrchestratorError):
    """Some fields are not as they must be."""

    code, http_status = "validation_failed", 422


class InternalError(OrchestratorError):
    """Something went wrong inside the orchestrator."""

    code, http_status = "internal_error", 500


class RedisUnavailable(TemporaryError):
    """Redis is out of reach; nothing was lost, try again soon."""

    code, http_status = "redis_unavailable", 503


class Draining(TemporaryError):
    """This instance is stopping; another one takes the request."""

    code, http_status = "draining", 503


class Overloaded(TemporaryError):
    """This instance has more to do than it can take."""

    code, http_status = "overloaded", 503
