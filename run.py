"""Starts the orchestrator: reads the settings, serves until a signal, drains, stops.

Or does one of the commands beside serving: `token`, `hash-key` (orchestrator/commands.py).
"""

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import structlog

from common import logs
from common.loops import loop_factory
from common.queues.embedded import EmbeddedRedisError
from config.settings import ConfigurationError, Settings, load
from orchestrator import __version__, commands
from orchestrator.auth.authenticator import check_keys
from orchestrator.service import Service

log = structlog.get_logger("run")

DEFAULT_CONFIG = Path(__file__).resolve().parent / "config" / "dev.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 stopped as asked, 1 could not go on, 2 wrong settings."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "hash-key":
            print(commands.hash_key(options))
            return 0
        settings = load(options.config, os.environ)
        check_keys(settings.auth)
        if options.command == "token":
            print(commands.token(settings.auth, options))
            return 0
    except ConfigurationError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    return _serve(options, settings)


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    if options.check_config:
        print(f"{options.config}: all settings are right.")
        return 0
    try:
        logs.configure(settings.logging)
    except OSError as error:
        print(f"logging.supervision_file: {error}", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Agent Orchestrator: chat clients on one side, agents on the other.",
        epilog="Settings come from the file and from ORCHESTRATOR_ variables, which win; "
        "config/reference.yaml lists them all. "
        "SIGTERM closes connections with 1012 (come back), SIGINT with 1001.",
    )
    _add_config(parser, DEFAULT_CONFIG)
    parser.add_argument(
        "--check-config", action="store_true", help="only say whether the settings are right"
    )
    parser.add_argument("--version", action="version", version=f"agent-orchestrator {__version__}")
    others = parser.add_subparsers(dest="command", title="commands, instead of serving")
    token = others.add_parser("token", help="print a token for trying things out")
    _add_config(token, argparse.SUPPRESS)  # what stands before the command holds
    commands.add_token(token)
    commands.add_hash_key(others.add_parser("hash-key", help="make an API key and its entry"))
    return parser


def _add_config(parser: argparse.ArgumentParser, default: Path | str) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=default,
        metavar="FILE",
        help="settings, YAML (default: config/dev.yaml)",
    )


async def _run(settings: Settings) -> int:
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
    _settle_memory()
    await asyncio.wait((asked, service.failed), return_when=asyncio.FIRST_COMPLETED)
    if service.failed.done():
        log.critical("service.failed", reason=service.failed.result())
        await service.drain()
        return 1
    await (service.drain() if asked.result() is signal.SIGTERM else service.stop())
    return 0


def _settle_memory() -> None:
    """What was imported and built by now stays: each full collection of garbage would walk all of
    it again, tens of milliseconds during which the loop stands still."""
    gc.collect()
    gc.freeze()


def _ask_to_stop(asked: "asyncio.Future[signal.Signals]", number: signal.Signals) -> None:
    """The first signal counts; more of them change nothing, as the stop is bounded."""
    if not asked.done():
        asked.set_result(number)


if __name__ == "__main__":
    sys.exit(main())
