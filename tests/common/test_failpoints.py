"""Failpoints do what a test asks for, where it asks for it, and nothing else."""

import asyncio
import os
import signal
import time

import pytest

from common.failpoints import Injected, InjectedBase, armed, failpoint, is_off
from tests.support.processes import service

PASSING = "from common.failpoints import failpoint; failpoint('a'); print('passed', flush=True)"


def test_an_unarmed_failpoint_does_nothing() -> None:
    failpoint("a")
    assert not is_off("a")


def test_it_raises_as_often_as_it_was_told_to() -> None:
    with armed("a=raise:2, b=base:1"):
        for _ in range(2):
            with pytest.raises(Injected, match="a"):
                failpoint("a")
        failpoint("a")
        with pytest.raises(InjectedBase):
            failpoint("b")
        failpoint("b")
        failpoint("c")
    failpoint("a")


def test_without_a_number_it_raises_every_time() -> None:
    with armed("a=raise"):
        for _ in range(20):
            with pytest.raises(Injected):
                failpoint("a")


def test_it_blocks_for_so_many_seconds() -> None:
    began = time.monotonic()
    with armed("a=sleep:0.05"):
        failpoint("a")
    assert time.monotonic() - began >= 0.05


def test_what_is_off_is_so_until_it_is_disarmed() -> None:
    with armed("dedupe=off,gap=raise"):
        assert is_off("dedupe")
        assert not is_off("gap")
        failpoint("dedupe")
    assert not is_off("dedupe")


@pytest.mark.parametrize("text", ["a", "a=", "=raise", "a=explode", "a=sleep", "a=raise:often"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"FAILPOINTS|could not convert"), armed(text):
        pass


async def test_a_process_started_with_the_variable_ends_as_if_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAILPOINTS", "a=exit")
    async with service(PASSING) as process:
        out, _ = await process.communicate()
    assert (process.returncode, out) == (9, b"")


async def test_a_process_stops_itself_until_it_is_continued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAILPOINTS", "a=stop:1")
    async with service(PASSING) as process:
        await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGCONT)
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"passed\n")
