"""The parameters that addresses take, each described once."""

from orchestrator.api_docs.operation import Json, in_header, in_path, in_query
from orchestrator.bodies import Id
from orchestrator.http import sessions
from orchestrator.schemas import LARGEST_OFFSET

ID: Json = {"type": "string", **Id().json_schema()}
SWITCH: Json = {"type": "string", "enum": ["0", "1"], "default": "0"}
OFFSET: Json = {"type": "integer", "minimum": 0, "maximum": LARGEST_OFFSET}
EPOCH: Json = {"type": "string", "minLength": 1, "maxLength": 128}

TENANT = in_path("tenant_id", ID, "Whose it is.", "acme")
SESSION = in_path("session_id", ID, "Which conversation.", "s-1")
FILE = in_path(
    "file",
    {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,128}$"},
    "A file of that folder.",
    "main.js",
)
QUEUE = in_path(
    "queue",
    {"type": "string", "enum": ["execute", "callbacks"]},
    "`execute`: messages whose attempts were used up; `callbacks`: reports that were unusable.",
    "execute",
)
LETTER = in_path(
    "id",
    {"type": "string", "pattern": r"^[0-9]{1,20}-[0-9]{1,20}$"},
    "The letter's `id`.",
    "1767225600000-0",
)

REQUEST_ID = in_header(
    "X-Request-ID",
    {"type": "string"},
    "Named in the answer and in logs, if it matches `[A-Za-z0-9._-]{1,64}`; else it is replaced.",
    "r-42",
)
IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key",
    {"type": "string", "pattern": r"^[\x20-\x7e]{1,128}$", "minLength": 1, "maxLength": 128},
    "The same key in the same session with an equal body answers the first response again, within"
    " 24 hours, and runs nothing.",
    "3f1c2e9a-7c51-4a0e-9d0a-0f6f1b1f4c11",
)
TRACEPARENT = in_header(
    "traceparent",
    {"type": "string"},
    "W3C Trace Context, passed on to the worker; one that is not well-formed is left out.",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
LAST_EVENT_ID = in_header(
    "Last-Event-ID",
    {"type": "string"},
    "`EPOCH:OFFSET` of the last event handled, for server-sent events; wins over the query.",
    "0a1b2c3d-0000-4000-8000-000000000000:7",
)

COMPACT = in_query("compact", SWITCH, "1: joins consecutive `agent_delta`s of one task.", "1")
TOKEN = in_query(
    "token", {"type": "string"}, "A token or key, where no header can be set; never logged.", "T"
)
DATE = in_query(
    "date",
    {"type": "string", "format": "date"},
    "Which UTC day; by default this one.",
    "2026-01-31",
)
USER = in_query("user_id", ID, "Who connects.", "u-1")
CLOSE_CODES = in_query("close_codes", SWITCH, "1: refuse by a close code instead of HTTP.", "1")
RESUME = (
    in_query("offset", OFFSET, "The offset of the last event handled.", 0),
    in_query("epoch", EPOCH, "The log that the offset belongs to.", "0a1b2c3d"),
)


def limit(most: int = sessions.MAX_LIMIT, default: int = sessions.DEFAULT_LIMIT) -> Json:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return in_query("limit", schema, "At most so many.", min(10, most))
