"""Logs are one line an event, whatever is in it; each test is a process, as logs are global."""

import subprocess
import sys
from pathlib import Path

import orjson

from tests.support.processes import PROJECT

BEGIN = """
import logging, structlog
from orchestrator import logs
from config.settings import LoggingSettings
logs.configure(LoggingSettings({settings}))
log = structlog.get_logger("here")
"""


def logged(script: str, settings: str = "") -> list[str]:
    done = subprocess.run(
        (sys.executable, "-c", BEGIN.format(settings=settings) + script),
        cwd=PROJECT,
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == b""
    return done.stderr.decode().removesuffix("\n").split("\n") if done.stderr else []


def test_an_event_is_one_line_of_json_with_its_facts() -> None:
    (line,) = logged('log.info("task.ended", task_id="t", waited_ms=1.5, nested={1: [None]})')
    event = orjson.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "task.ended",
        "level": "info",
        "logger": "here",
        "task_id": "t",
        "waited_ms": 1.5,
        "nested": {"1": [None]},
    }


def test_lines_of_libraries_look_the_same() -> None:
    (line,) = logged('logging.getLogger("lib").warning("said %s", "a\\nb")')
    event = orjson.loads(line)
    assert (event["event"], event["level"], event["logger"]) == ("said a\nb", "warning", "lib")


def test_a_failure_carries_its_traceback_in_the_same_line() -> None:
    (line,) = logged('try: 1/0\nexcept Exception: log.exception("it.failed")')
    assert "ZeroDivisionError" in orjson.loads(line)["exception"]


def test_whatever_is_in_an_event_it_is_one_line() -> None:
    lines = logged(
        'log.info("a", x="\\ud800", y=1)\nlog.info("b", x=2**70)\n'
        'log.info("c", x="\\r\\n\\x1b[31m\\u2028")\nlog.info("d", x=object())'
    )
    assert [orjson.loads(line)["event"].strip("'") for line in lines] == ["a", "b", "c", "d"]


def test_a_long_value_is_cut_and_says_so() -> None:
    (line,) = logged('log.info("a", x="y" * 1_000_000)')
    value = orjson.loads(line)["x"]
    assert len(value) < 5000
    assert value.endswith("(1000000 characters)")


def test_what_is_less_serious_than_the_level_is_not_written() -> None:
    assert logged('log.info("a"); logging.getLogger("x").info("b")', 'level="warning"') == []


def test_requests_are_not_logged_and_supervision_has_its_file(tmp_path: Path) -> None:
    file = tmp_path / "supervision.log"
    lines = logged(
        'logging.getLogger("tornado.access").error("500 GET /ws/a/b?token=secret")\n'
        'structlog.get_logger("supervision").warning("actor.failed", actor="a")',
        f'format="console", supervision_file={str(file)!r}',
    )
    assert len(lines) == 1
    assert "actor.failed" in lines[0]
    assert orjson.loads(file.read_text())["actor"] == "a"
