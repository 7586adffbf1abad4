"""Where logs go: lines for a terminal, or one JSON object a line; supervision to a file as well.

Everything passes the standard library's loggers, so that libraries' lines look like ours.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import orjson
import structlog

from config.settings import LoggingSettings

MOST_VALUE = 4096  # characters of one value; a traceback may have four times as many

QUIET = ("tornado.access",)  # requests are counted by the metrics; errors are logged by us


def configure(settings: LoggingSettings) -> None:
    """Sends all logs to standard error as the settings say. To be called once."""
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


def _handler(handler: logging.Handler, *, is_json: bool) -> logging.Handler:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[Any]
    if is_json:
        ending = [
            structlog.processors.format_exc_info,
            _bound,
            structlog.processors.JSONRenderer(serializer=_dump),
        ]
    else:
        ending = [_bound, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_for_ours(each) for each in shared),
                *ending,
            ],
        )
    )
    return handler


def _for_ours(processor: Any) -> Any:
    """Lines of other libraries have been through these already."""

    def process(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if "timestamp" in event and "level" in event and "logger" in event:
            return event
        done: dict[str, Any] = processor(logger, method, event)
        return done

    return process


def _bound(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """No value fills a disk: what is longer than sensible is cut, and says so."""
    for name, value in event.items():
        most = MOST_VALUE * 4 if name in ("exception", "traceback") else MOST_VALUE
        if isinstance(value, str) and len(value) > most:
            event[name] = f"{value[:most]}… ({len(value)} characters)"
    return event


def _dump(event: Any, **_: Any) -> str:
    """One line, whatever is in it: a value that is no JSON is told as Python would."""
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        return json.dumps({str(name): repr(value) for name, value in event.items()})
