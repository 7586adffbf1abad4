"""Processes of ours run on uvloop where there is one, and on asyncio's own loop elsewhere."""

import asyncio
import sys

import pytest
import uvloop

from common.loops import loop_factory


def loop_of_a_process() -> type[asyncio.AbstractEventLoop]:
    async def ask() -> type[asyncio.AbstractEventLoop]:
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(ask())


def test_where_there_is_uvloop_it_runs() -> None:
    assert loop_of_a_process() is uvloop.Loop


def test_where_there_is_none_asyncio_s_own_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not installed
    with asyncio.Runner() as own:
        assert loop_of_a_process() is type(own.get_loop())
