"""Logs are one line an event, whatever is in it; each test is a process, as logs are global."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from common.logs import Throttle
from tests.support.processes import PROJECT

BEGIN = """
import logging, structlog, time
now = 0.0
time.monotonic = lambda: now  # no second passes unless a test says so
from common import logs
from config.sections import LoggingSettings
logs.configure(LoggingSettings({settings}))
log = structlog.get_logger("here")
"""
# What somebody may put into whatever is logged (payloads, ids, headers, queries).
FORGED = '{"timestamp":"2026-01-01T00:00:00Z","level":"critical","event":"forged"}'
NASTY = [
    f"\r\n{FORGED}\r\n",
    f"\n{FORGED}\n2026-01-01T00:00:00Z [critical ] forged",
    "\x1b[2J\x1b[31mforged\x1b[0m\x1b]0;forged\x07",
    "a\x00b",
    f"\u2028{FORGED}\u2029\u0085{FORGED}",
    "\u202eforged\u2066\ufeff\u200b",
    "\ud800 \udfff",
    "\x7f\x9b31mforged",
    "%s %d %(event)s %",
    "{} {event} {0!r:>999999999}",
    "a=1 level=critical event='forged'",
    '","event":"forged","x":"',
]


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
    assert list(event) == [
        *("timestamp", "level", "event", "logger"),
        *("task_id", "waited_ms", "nested"),
    ]
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


@pytest.mark.parametrize(
    "fails", ['log.exception("it.failed")', 'logging.getLogger("lib").exception("it.failed")']
)
def test_a_failure_carries_its_traceback_in_the_same_line(fails: str) -> None:
    (line,) = logged(f"try: 1/0\nexcept Exception: {fails}")
    assert "ZeroDivisionError" in orjson.loads(line)["exception"]


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_no_line_can_be_forged(nasty: str, format_: str) -> None:
    """As a value, as a name, deep within a value, as text of a library, and in both formats."""
    lines = logged(
        f"x = {nasty!r}\nlog.info('a', x=x)\nlog.info('a', **{{x: 1}})\n"
        "log.info('a', x=[{'x': x, x: [x]}])\nlog.info('a', x=ValueError(x))\n"
        "logging.getLogger('lib').warning('a %s', x)\n",
        f'format="{format_}"',
    )
    assert len(lines) == 5
    for line in lines:
        assert len(line.splitlines()) == 1  # which also counts U+2028 and the like
        assert line.isprintable()
        if format_ == "json":
            event = orjson.loads(line)
            assert event["event"].startswith("a")
            assert event["level"] in {"info", "warning"}
        else:
            assert line.split()[1] in {"[info", "[warning"}


@pytest.mark.parametrize("nasty", NASTY[:2], ids=range(2))
def test_a_traceback_stands_below_its_line_and_cannot_pass_for_another(nasty: str) -> None:
    script = f"try: raise ValueError({nasty!r})\nexcept ValueError: log.exception('it.failed')"
    first, *below = logged(script, 'format="console"')
    assert "it.failed" in first
    assert all(line.startswith("    ") for line in below)
    (line,) = logged(script)
    assert orjson.loads(line)["event"] == "it.failed"


def test_whatever_is_in_an_event_it_can_be_written() -> None:
    lines = logged(
        'log.info("a", x=2**70)\nlog.info("b", x=10**5000)\nlog.info("c", x=object())\n'
        'log.info("d", x=float("nan"))\nlog.info("e", x=b"\\xff")\nlog.info("f", x={1, 2})\n'
        "x = []\nx.append(x)\nlog.info('g', x=x)"
    )
    assert [orjson.loads(line)["event"] for line in lines] == list("abcdefg")


def test_a_long_value_is_cut_at_a_kilobyte_and_says_so() -> None:
    lines = logged(
        'x = "y" * 2**20\nlog.info("a", x=x)\nlog.info("a", x=[x] * 1000)\n'
        'log.info("a", x={str(n): x for n in range(1000)})\nlog.info("a", **{x: 1})\n'
        'logging.getLogger("lib").warning("a %s", x)'
    )
    for line in lines:
        assert len(line) < 25_000
    value = orjson.loads(lines[0])["x"]
    assert len(value) < 1100
    assert value.endswith("(1048576 characters)")
    assert len(orjson.loads(lines[4])["event"]) < 1100


def test_what_is_less_serious_than_the_level_is_not_written() -> None:
    assert logged('log.info("a"); logging.getLogger("x").info("b")', 'level="warning"') == []


def test_requests_are_not_logged_and_supervision_has_its_file(tmp_path: Path) -> None:
    file = tmp_path / "supervision.log"
    lines = logged(
        'logging.getLogger("tornado.access").error("500 GET /ws/a/b?token=secret")\n'
        f'structlog.get_logger("supervision").warning("actor.failed", actor={NASTY[0]!r})',
        f'format="console", supervision_file={str(file)!r}',
    )
    assert len(lines) == 1
    assert "actor.failed" in lines[0]
    (line,) = file.read_text().splitlines()
    assert orjson.loads(line)["actor"] == NASTY[0]


def test_what_tornado_could_not_read_is_not_repeated() -> None:
    (line,) = logged(
        'logging.getLogger("tornado.general").info("Malformed HTTP message from %s: %s",'
        """ "127.0.0.1", "Invalid header value 'canary'")"""
    )
    event = orjson.loads(line)
    assert (event["event"], event["address"]) == ("http.malformed", "127.0.0.1")
    assert event["reason"] == "Invalid header value"
    assert "canary" not in line


def test_a_flood_is_one_line_a_second_and_the_next_says_how_many_there_were() -> None:
    lines = logged(
        'for _ in range(500): log.warning("push.set_aside"); log.info("task.tidied")\n'
        'for n in range(500): logging.getLogger("tornado.general").warning("bad %s", n)\n'
        'now += 1\nlog.warning("push.set_aside")\n'
        'logging.getLogger("tornado.general").warning("bad %s", "again")'
    )
    events = [orjson.loads(line) for line in lines]
    assert sum(event["event"] == "task.tidied" for event in events) == 500
    assert [event.get("suppressed") for event in events if event["event"] == "push.set_aside"] == [
        None,
        499,
    ]
    libraries = [event for event in events if event["event"].startswith("bad")]
    assert [(event["event"], event.get("suppressed")) for event in libraries] == [
        ("bad 0", None),
        ("bad again", 499),
    ]


def record(**facts: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "lib", "msg": "a", **facts})


def test_a_flood_of_kinds_takes_no_memory() -> None:
    throttle = Throttle(clock=lambda: 0.5)
    for number in range(10_000):
        throttle.filter(record(msg=f"text {number}"))
    assert len(throttle._kinds) <= 1000


def test_each_kind_is_counted_by_itself() -> None:
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    ours = ("request.failed", "credentials.refused", "loop.stalled")
    kinds: list[Any] = ["a", "b", *({"event": event} for event in ours)]
    for kind in kinds:
        assert throttle.filter(record(msg=kind))
        assert not throttle.filter(record(msg=kind))
    now[0] = 1.0
    for kind in kinds:
        again = record(msg=kind)
        assert throttle.filter(again)
        assert again.suppressed == 1  # type: ignore[attr-defined]
