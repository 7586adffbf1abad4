"""Where logs go: lines for a terminal, or one JSON object a line; supervision to a file as well.

Everything passes the standard library's loggers, so that libraries' lines look like ours. What may
stand in a line: `common/log_values.py`.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from common.log_values import TRACEBACKS, bounded, indented, visible, visible_json
from config.sections import LoggingSettings

FIRST = ("timestamp", "level", "event", "logger")

# Never written: requests are counted by the metrics, and an address may hold a token.
QUIET = ("tornado.access", "httpx", "httpcore")

# Lines that somebody outside, or a busy machine, can cause without end: one a second of each kind.
FLOODABLE = frozenset(
    {
        *("callbacks.set_aside", "push.set_aside", "callback.failed", "callbacks.failed"),
        *("bridge.message_unreadable", "entry.unreadable", "callback.refused"),
        *("address.kept_out", "credentials.refused", "request.failed", "http.malformed"),
        "loop.stalled",
    }
)
EVERY = 1.0  # seconds
MOST_KINDS = 1000

Event = MutableMapping[str, Any]


def configure(settings: LoggingSettings) -> None:
    """Sends all logs to standard error as the settings say. To be called once.

    Raises:
        OSError: the supervision file cannot be written.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    is_json = settings.format == "json"
    root = logging.getLogger()
    root.handlers = [_handler(logging.StreamHandler(sys.stderr), is_json=is_json)]
    root.setLevel(settings.level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if settings.supervision_file is not None:
        file = logging.FileHandler(Path(settings.supervision_file), encoding="utf-8")
        logging.getLogger("supervision").addHandler(_handler(file, is_json=True))


class Throttle(logging.Filter):
    """Lets a line a second pass of each kind that can be a flood, and counts the others.

    The next line of the kind says how many: `suppressed`. Lines of libraries are all of that sort;
    their kind is the text before anything is filled in.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[
            object, tuple[float, int]
        ] = {}  # when the next may pass, and how many not

    def filter(self, record: logging.LogRecord) -> bool:
        kind = _kind_of(record)
        if kind is None:
            return True
        now = self._clock()
        next_at, suppressed = self._kinds.get(kind, (0.0, 0))
        if now < next_at:
            self._kinds[kind] = (next_at, suppressed + 1)
            return False
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now + EVERY, 0)
        if suppressed:
            record.suppressed = suppressed
        return True


def _kind_of(record: logging.LogRecord) -> object:
    if not isinstance(record.msg, dict):
        return (record.name, record.msg)
    event = record.msg.get("event")
    return event if event in FLOODABLE else None


def _handler(handler: logging.Handler, *, is_json: bool) -> logging.Handler:
    ending: list[Any] = (
        [structlog.processors.JSONRenderer(serializer=_dump)]
        if is_json
        else [_for_people, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler.addFilter(Throttle())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[  # of libraries' lines too
                _malformed,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _suppressed,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _in_order,
                *ending,
            ],
        )
    )
    return handler


def _suppressed(_: Any, __: str, event: Event) -> Event:
    count = getattr(event["_record"], "suppressed", 0)
    return {**event, "suppressed": count} if count else event


def _malformed(_: Any, __: str, event: Event) -> Event:
    """Tornado repeats what it could not read, a header with a key in it perhaps; we do not."""
    if event["_record"].name != "tornado.general":
        return event
    said = re.match(r"Malformed HTTP message from (\S+): ([A-Za-z][A-Za-z ]*)", event["event"])
    if not said:
        return event
    return {**event, "event": "http.malformed", "address": said[1], "reason": said[2].strip()}


def _in_order(_: Any, __: str, event: Event) -> Event:
    """What is read first stands first, and nothing is longer than sensible."""
    known = {name: event[name] for name in FIRST if name in event}
    return bounded({**known, **event})


def _for_people(_: Any, __: str, event: Event) -> Event:
    """Tracebacks below the line; the renderer quotes what is no plain word."""
    told = [indented(str(event.pop(name))) for name in TRACEBACKS if event.get(name)]
    shown = {
        visible(name): visible(value) if isinstance(value, str) else value
        for name, value in event.items()
    }
    return {**shown, "exception": "\n".join(told)} if told else shown


def _dump(event: Any, **_: Any) -> str:
    """One line, whatever is in it: `bounded` has left nothing that is no JSON."""
    return visible_json(orjson.dumps(event).decode())
