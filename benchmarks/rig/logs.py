"""Reads the logs of the processes for what no fault excuses (I11, I12)."""

from collections.abc import Iterable
from pathlib import Path

import orjson

from benchmarks.rig.findings import Findings

NEVER = ("never retrieved", "never awaited", "Traceback (most recent call last)")
BAD_LEVELS = ("error", "critical")


def check_logs(logs: Iterable[Path], findings: Findings) -> None:
    """Errors and tracebacks of the service and of its worker."""
    for log in logs:
        with log.open(errors="replace") as lines:
            for line in lines:
                if _is_bad(line):
                    findings.add("unhandled", f"{log.name}: {line.strip()[:1500]}")


def _is_bad(line: str) -> bool:
    if any(words in line for words in NEVER):
        return True
    try:
        return orjson.loads(line).get("level") in BAD_LEVELS
    except (orjson.JSONDecodeError, AttributeError):
        return False
