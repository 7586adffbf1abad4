"""A moment is awaited by one timer, which can be moved and called off."""

import asyncio
import time

import pytest

from actors import expiry
from actors.expiry import Expiry


async def test_it_calls_once_when_the_moment_has_come() -> None:
    came: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    moment = time.time() + 0.1
    Expiry(lambda: came.set_result(time.time())).at(moment)
    assert moment <= await came < moment + 2


async def test_a_moment_that_has_passed_is_told_at_once() -> None:
    calls: list[int] = []
    Expiry(lambda: calls.append(1)).at(time.time() - 1)
    assert calls == [1]


async def test_it_can_be_moved_to_later_to_sooner_and_to_never() -> None:
    async def moved(*moments: float | None) -> None:
        came: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        awaited = Expiry(lambda: came.set_result(time.time()))
        now = time.time()
        for moment in moments:
            awaited.at(None if moment is None else now + moment)
        assert await came >= now + (moments[-1] or 0)

    await asyncio.gather(moved(60.0, 0.05), moved(0.5, None, 0.6), moved(0.5, 0.6))


async def test_what_is_called_off_does_not_happen() -> None:
    calls: list[int] = []
    soon = time.time() + 0.5
    for moment in (soon, None):
        awaited = Expiry(lambda: calls.append(1))
        awaited.at(moment)
        awaited.cancel()
        awaited.cancel()
    later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    Expiry(lambda: later.set_result(None)).at(soon + 0.1)
    await later
    assert calls == []


async def test_a_long_wait_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LONGEST_WAIT", 0.01)
    came: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    moment = time.time() + 0.1
    Expiry(lambda: came.set_result(time.time())).at(moment)
    assert await came >= moment
