"""The supervision log tells what failed, on what, why and what was done; never what was said."""

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from actors.supervision_log import MOST_TRACEBACK, SupervisionLog, describe
from tests.actors.examples import Job


def fail(log: SupervisionLog, error: BaseException, *messages: Any) -> None:
    log.failed(
        "supervisor/router",
        "Router",
        error,
        phase="on_receive",
        messages=messages,
        mailbox=7,
        uptime_ms=12,
        restarts=2,
        outcome="restart",
    )


def raised(text: str) -> Exception:
    try:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise ValueError(text) from cause
    except ValueError as error:
        return error


def test_a_failure_is_told_with_everything_one_asks_at_night() -> None:
    log = SupervisionLog()
    fail(log, raised("broken pipe"), Job())
    (event,) = log.newest(1)
    assert event["event"] == "actor.failed"
    assert event["at"].endswith("Z")
    facts = {key: event[key] for key in event.keys() - {"event", "at", "traceback"}}
    assert facts == {
        "level": "error",
        "actor": "supervisor/router",
        "class": "Router",
        "phase": "on_receive",
        "error_type": "ValueError",
        "error": "broken pipe",
        "message_type": "Job",
        "messages": 1,
        "task_id": "t-1",
        "tenant_id": "acme",
        "mailbox": 7,
        "uptime_ms": 12,
        "restarts": 2,
        "outcome": "restart",
    }
    assert "KeyError: 'cause'" in event["traceback"]
    assert "in raised" in event["traceback"]


def test_what_a_message_says_is_never_written() -> None:
    log = SupervisionLog()
    with capture_logs() as lines:
        fail(log, raised("x"), Job(text="my password"), {"task_id": "t", "text": "my password"})
    assert "my password" not in json.dumps([lines, log.newest()])


def test_a_batch_is_told_by_its_types_and_identifiers() -> None:
    facts = describe([Job(task_id=f"t-{n}") for n in range(40)] + [{"session_id": "s"}])
    assert facts["messages"] == 41
    assert facts["message_type"] == "Job, dict"
    assert facts["task_id"] == [f"t-{n}" for n in range(10)]
    assert "session_id" not in facts  # beyond the first ten
    assert describe([{"session_id": "s", "task_id": object()}]) == {
        "message_type": "dict",
        "messages": 1,
        "session_id": "s",
    }
    assert describe([]) == {"message_type": None, "messages": 0}


def test_a_message_that_cannot_even_be_looked_at_does_not_hide_its_failure() -> None:
    @dataclass
    class Cursed:
        @property
        def task_id(self) -> str:
            raise RuntimeError

    assert describe([Cursed()]) == {"message_type": "Cursed", "messages": 1}


def test_endless_errors_are_cut() -> None:
    log = SupervisionLog()
    fail(log, raised("x" * 100_000))
    (event,) = log.newest()
    assert len(event["error"]) == 501
    assert len(event["traceback"]) == MOST_TRACEBACK + 1


def test_the_newest_events_come_first_and_the_oldest_are_forgotten() -> None:
    log = SupervisionLog(size=3)
    for n in range(5):
        log.started(f"a{n}", "A")
    assert [event["actor"] for event in log.newest()] == ["a4", "a3", "a2"]
    assert [event["actor"] for event in log.newest(1)] == ["a4"]
    assert log.newest(0) == log.newest(-1) == []


def test_every_event_is_one_line_of_json_on_its_own_logger() -> None:
    lines = io.StringIO()
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(lines),
    )
    try:
        log = SupervisionLog()
        log.started("a", "A")
        fail(log, raised("two\nlines"), Job())
        log.restarted("a", "A", delay_ms=50, restarts=1, mailbox=3)
        log.escalated("a", "A", reason="too often", restarts=5)
        log.stopped("a", "A", uptime_ms=9, dropped=0)
    finally:
        structlog.configure(**before)
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    words = ["started", "failed", "restarted", "escalated", "stopped"]
    assert [line["event"] for line in written] == [f"actor.{word}" for word in words]
    kept = json.loads(json.dumps(log.newest()))
    assert [line | {"at": "", "level": ""} for line in reversed(kept)] == [
        line | {"at": "", "level": ""} for line in written
    ]


@pytest.mark.parametrize(
    ("event", "level"),
    [("started", "info"), ("escalated", "critical")],
)
def test_levels_say_how_bad_it_is(event: str, level: str) -> None:
    log = SupervisionLog()
    with capture_logs() as lines:
        log.started("a", "A")
        log.escalated("a", "A", reason="r", restarts=1)
    assert {line["event"]: line["log_level"] for line in lines}[f"actor.{event}"] == level
