"""Errors as `application/problem+json` (RFC 9457; contract, section 3)."""

import http

import orjson

from common.domain.errors import OrchestratorError, TemporaryError, TooMany, Unauthorized

CONTENT_TYPE = "application/problem+json"


def problem_body(error: OrchestratorError, request_id: str) -> bytes:
    """The body that tells an error; nothing of our inside is in it."""
    body: dict[str, object] = {
        "type": f"urn:agent-orchestrator:problem:{error.code}",
        "title": http.HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if error.errors:
        body["errors"] = error.errors
    return orjson.dumps(body)


def headers_of(error: OrchestratorError) -> dict[str, str]:
    """What an error tells by headers: when to come back, and what to do otherwise."""
    headers = {}
    if isinstance(error, TemporaryError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, TooMany):
        headers["RateLimit-Limit"] = str(error.limit)
        headers["RateLimit-Remaining"] = str(error.remaining)
        headers["RateLimit-Reset"] = str(error.reset)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return headers
