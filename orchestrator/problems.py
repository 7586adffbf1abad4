"""Errors as `application/problem+json` (RFC 9457; contract, section 3)."""

import http

import orjson

from common.domain.errors import OrchestratorError

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
