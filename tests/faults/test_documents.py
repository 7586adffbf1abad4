"""The pages about guarantees, operations and tenants say what is there, and all of it."""

import re
from pathlib import Path

from config.settings import SHIPPED_TIERS
from tests.faults.test_matrix import PROJECT, names_in

GUARANTEES = PROJECT / "docs" / "guarantees.md"
OPERATIONS = PROJECT / "docs" / "operations.md"
TENANTS = PROJECT / "docs" / "tenants.md"
ROOMS = ("actors", "common", "execution", "orchestrator", "run.py")

TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
LINE = re.compile(
    r"\blog\.(?:debug|info|warning|error|critical|exception)\(\s*f?\"(?:\{self\.what\})?(\.?[\w.]+)\""
)
RECORD = re.compile(r"\"(actor\.\w+)\"")
METRIC = re.compile(r"\(\"(\w+)\", \"[A-Z]")


def code() -> str:
    files = [PROJECT / room for room in ROOMS]
    paths = [path for each in files for path in ([each] if each.is_file() else each.rglob("*.py"))]
    return "\n".join(path.read_text() for path in paths)


def test_every_test_behind_a_guarantee_exists() -> None:
    named = TEST.findall(GUARANTEES.read_text())
    assert len(named) > 30
    for path, name in named:
        assert name in names_in(PROJECT / path), f"there is no {path}::{name}"


def test_every_test_behind_the_page_about_tenants_exists() -> None:
    named = TEST.findall(TENANTS.read_text())
    assert len(named) >= 10
    for path, name in named:
        assert name in names_in(PROJECT / path), f"there is no {path}::{name}"


def test_the_page_about_tenants_has_the_shipped_tiers() -> None:
    page = TENANTS.read_text()
    for name, tier in SHIPPED_TIERS.items():
        limits = (
            *(tier.requests_per_minute, tier.requests_per_hour, tier.tokens_per_day),
            *(tier.max_queued, tier.max_running),
        )
        told = " | ".join("-" if limit is None else str(limit) for limit in limits)
        assert f"| `{name}` | {told} | `{tier.priority}` |" in page


def test_every_promise_has_a_test() -> None:
    promises = re.split(r"\n\*\*(?=\d\. )", GUARANTEES.read_text().partition("## Under which")[0])
    assert len(promises) == 1 + 5
    for promise in promises[1:]:
        assert TEST.search(promise), promise[:60]


def test_every_line_of_the_log_is_explained() -> None:
    page = OPERATIONS.read_text()
    for event in {*LINE.findall(code()), *RECORD.findall(code())}:
        assert f"{event}`" in page, f"docs/operations.md does not say what {event} means"


def test_every_metric_is_explained() -> None:
    page = OPERATIONS.read_text()
    metrics = METRIC.findall(Path(PROJECT, "orchestrator", "metrics.py").read_text())
    assert len(metrics) > 15
    for name in metrics:
        assert f"`orchestrator_{name}" in page, f"docs/operations.md does not mention {name}"
