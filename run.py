"""Starts the orchestrator: reads the settings, serves until a signal, drains, stops."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from common.queues.embedded import EmbeddedRedisError
from config.settings import ConfigurationError, Settings, load
from orchestrator import __version__, logs
from orchestrator.service import Service

log = structlog.get_logger("run")

DEFAULT_CONFIG = Path(__file__).resolve().parent / "config" / "dev.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 stopped as asked, 1 could not go on, 2 wrong settings."""
    options = _parser().parse_args(arguments)
    try:
        settings = load(options.config, os.environ)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    if options.check_config:
        print(f"{options.config}: all settings are right.")
        return 0
    try:
        logs.configure(settings.logging)
    except OSError as error:
        print(f"logging.supervision_file: {error}", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Agent Orchestrator: chat clients on one side, agents on the other.",
        epilog="Settings come from the file and from ORCHESTRATOR_ variables, which win; "
        "config/reference.yaml lists them all. "
        "SIGTERM closes connections with 1012 (come back), SIGINT with 1001.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help="settings, YAML (default: config/dev.yaml)",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="only say whether the settings are right"
    )
    parser.add_argument("--version", action="version", version=f"agent-orchestrator {__version__}")
    return parser


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _ask_to_stop, asked, number)
    service = Service(settings)
    starting = asyncio.ensure_future(service.start())
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    try:
        await starting
    except (OSError, EmbeddedRedisError) as error:
        log.error("service.not_started", reason=str(error))
        return 1
    await asyncio.wait((asked, service.failed), return_when=asyncio.FIRST_COMPLETED)
    if service.failed.done():
        log.critical("service.failed", reason=service.failed.result())
        await service.drain()
        return 1
    await (service.drain() if asked.result() is signal.SIGTERM else service.stop())
    return 0


def _ask_to_stop(asked: "asyncio.Future[signal.Signals]", number: signal.Signals) -> None:
    """The first signal counts; more of them change nothing, as the stop is bounded."""
    if not asked.done():
        asked.set_result(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    sys.exit(main())
