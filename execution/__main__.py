"""`python -m execution`: a worker as a process of its own."""

import argparse
import asyncio
import importlib
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from common import logs
from common.loops import loop_factory
from common.queues.work_entries import RedisRefused
from config.sections import LoggingSettings
from execution.settings import WorkerSettings
from execution.worker import Worker

OPENAI = "execution.agents.openai"
DEFAULT_AGENTS = ("execution.agents.demo", OPENAI)
LEVELS = ("debug", "info", "warning", "error")

N = TypeVar("N")


class WrongStart(Exception):
    """The worker cannot start as it was asked to; the message says why."""


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The options; each may be given as the variable that its help names, too."""
    options = argparse.ArgumentParser(
        prog="python -m execution",
        description="Runs agents for the orchestrator: takes tasks from Redis, reports on them.",
        epilog="SIGTERM or SIGINT: takes no more, lets running tasks finish, gives back the rest. "
        "A second one: gives them back at once.",
    )

    def add(name: str, default: str | None, text: str) -> None:
        variable = f"EXECUTION_{name.replace('-', '_').upper()}"
        shown = "" if default is None else f"; default {default}"
        options.add_argument(
            f"--{name}", default=environ.get(variable, default), help=f"{text} [{variable}{shown}]"
        )

    options.add_argument(
        "--agents",
        action="append",
        metavar="PACKAGE.MODULE[:WORKER]",
        help="where agents are: a module, and the Worker in it (default: worker). May be repeated "
        f"[EXECUTION_AGENTS, separated by commas; default {' and '.join(DEFAULT_AGENTS)}]",
    )
    add("redis-url", "redis://127.0.0.1:6379/0", "the orchestrator's Redis")
    add("key-prefix", "orchestrator:", "the orchestrator's redis.key_prefix")
    add("concurrency", "16", "tasks at once")
    add("name", None, "the worker's name, which need not be unique (default: the host's)")
    add("drain-seconds", "20", "what running tasks are given to finish when the worker stops")
    add("orchestrator-url", None, "where agents read a session's earlier turns")
    add("orchestrator-token", None, "its bearer token, if it wants one; better as the variable")
    add("log-format", "console" if sys.stderr.isatty() else "json", "json or console")
    add("log-level", "info", "debug, info, warning or error")
    options.add_argument("--version", action="version", version=version())
    return options


def version() -> str:
    """The project's version: of the checkout, else of the installed package."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text())["project"]["version"])
    return metadata.version("agent-orchestrator")


def settings_from(options: argparse.Namespace) -> WorkerSettings:
    """Raises WrongStart for what cannot be."""
    named = {"name": options.name} if options.name is not None else {}
    try:
        return WorkerSettings(
            redis_url=options.redis_url,
            key_prefix=options.key_prefix,
            concurrency=_number(options.concurrency, "concurrency", int),
            drain_seconds=_number(options.drain_seconds, "drain-seconds", float),
            orchestrator_url=options.orchestrator_url,
            orchestrator_token=options.orchestrator_token,
            **named,
        )
    except ValueError as error:
        raise WrongStart(str(error)) from error


def _number(text: str, name: str, kind: Callable[[str], N]) -> N:
    try:
        return kind(text)
    except ValueError as error:
        raise WrongStart(f"{name} must be a number, not {text!r}") from error


def load(paths: Sequence[str]) -> Worker:
    """One worker with the agents of all modules. Raises WrongStart, saying which is wrong."""
    sys.path.insert(0, str(Path.cwd()))
    combined = Worker()
    for path in paths:
        module_name, _, attribute = path.partition(":")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            text = f"cannot import {module_name}: {type(error).__name__}: {error}"
            raise WrongStart(f"--agents {path}: {text}") from error
        found = getattr(module, attribute or "worker", None)
        if not isinstance(found, Worker):
            raise WrongStart(f"--agents {path}: no Worker named {attribute or 'worker'} in it")
        try:
            combined.include(found)
        except ValueError as error:
            raise WrongStart(f"--agents {path}: {error}") from error
    if not combined.agents:
        where = " and ".join(paths)
        hint = "; set OPENAI_API_KEY or OPENAI_BASE_URL" if OPENAI in paths else ""
        raise WrongStart(f"--agents {where}: the Worker has no agents{hint}")
    return combined


def configure_log(log_format: str, level: str) -> None:
    """One line an event, to stderr. Raises WrongStart for an unknown format or level."""
    if log_format not in {"json", "console"}:
        raise WrongStart(f"log-format must be json or console, not {log_format!r}")
    if level not in LEVELS:
        raise WrongStart(f"log-level must be one of {', '.join(LEVELS)}, not {level!r}")
    logs.configure(LoggingSettings(format=log_format, level=level))


async def serve(worker: Worker, settings: WorkerSettings) -> None:
    """Runs until a signal has stopped the worker and its tasks are finished or given back."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    await worker.run(settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 after an orderly stop, 1 if Redis refuses, 2 for bad options."""
    options = parser(os.environ).parse_args(arguments)
    paths = options.agents or os.environ.get("EXECUTION_AGENTS", "").split(",")
    paths = [path.strip() for path in paths if path.strip()] or DEFAULT_AGENTS
    try:
        configure_log(options.log_format, options.log_level)
        settings = settings_from(options)
        worker = load(paths)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(worker, settings))
    except (WrongStart, ValueError) as error:
        print(f"python -m execution: {error}", file=sys.stderr)
        return 2
    except RedisRefused as error:
        print(f"python -m execution: Redis refuses this worker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
