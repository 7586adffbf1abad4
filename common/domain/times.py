"""Times as the contract spells them: RFC 3339 UTC with milliseconds, or unix milliseconds."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """This machine's wall clock in unix milliseconds: to inform, never to decide."""
    return time.time_ns() // 1_000_000


def rfc3339(unix_ms: int) -> str:
    """`2026-01-31T10:00:00.123Z`."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"
