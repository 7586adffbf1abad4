"""Mailboxes and dead letters."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from pykka import ActorDeadError
from structlog.testing import capture_logs

from actors.mailbox import DeadLetters, Envelope, Mailbox, MailboxFull
from common.domain.errors import Overloaded
from tests.actors.examples import Echo


def test_a_mailbox_gives_back_in_order_and_takes_no_more_than_its_limit() -> None:
    mailbox = Mailbox(2)
    mailbox.put(Envelope("first"))
    mailbox.put(Envelope("second"))
    with pytest.raises(MailboxFull) as refused:
        mailbox.put(Envelope("third"))
    assert isinstance(refused.value, Overloaded)
    assert refused.value.http_status == 503
    assert mailbox.get().message == "first"
    assert [envelope.message for envelope in mailbox.take(10)] == ["second"]
    assert mailbox.empty()


def test_a_control_message_gets_into_a_full_mailbox() -> None:
    mailbox = Mailbox(1)
    mailbox.put(Envelope("work"))
    mailbox.put_control(Envelope("stop"))
    assert len(mailbox) == 2


async def test_an_asker_that_has_gone_is_neither_answered_nor_refused() -> None:
    future = asyncio.get_running_loop().create_future()
    envelope = Envelope("?", future)
    future.cancel()
    envelope.answer(1)
    envelope.refuse(ValueError())
    assert future.cancelled()


async def test_an_answer_stops_the_clock_of_its_ask() -> None:
    loop = asyncio.get_running_loop()
    envelope = Envelope("?", loop.create_future())
    envelope.timer = timer = loop.call_later(60, envelope.expire, "nobody")
    envelope.answer(1)
    assert timer.cancelled()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), StopIteration()])
async def test_what_would_look_like_the_askers_own_end_is_told_as_a_dead_actor(
    error: BaseException,
) -> None:
    future = asyncio.get_running_loop().create_future()
    Envelope("?", future).refuse(error)
    with pytest.raises(ActorDeadError) as raised:
        await future
    assert raised.value.__cause__ is error


def counts_of(actor_class: type, lines: Iterable[Mapping[str, Any]]) -> list[int]:
    """What was logged of one class: on the same loop an earlier test's may still be told of."""
    return [line["count"] for line in lines if line.get("actor_class") == actor_class.__name__]


async def test_dead_letters_are_all_counted_and_logged_once_an_interval() -> None:
    class Crowd(Echo):
        pass

    letters = DeadLetters()
    letters.interval = 0.5
    begun = time.monotonic()
    with capture_logs() as lines:
        for _ in range(1000):
            letters.count(Crowd, "lost")
        assert counts_of(Crowd, lines)[0] == 1
        while sum(counts_of(Crowd, lines)) < 1000:  # a line is no event to wait for
            await asyncio.sleep(0.01)
        took = time.monotonic() - begun
    assert len(counts_of(Crowd, lines)) <= 1 + took / letters.interval
    assert {line["message_type"] for line in lines if line.get("actor_class") == "Crowd"} == {"str"}
    assert "lost" not in str(lines)
    assert letters.total == letters.by_class["Crowd"] == 1000


async def test_dead_letters_after_the_interval_do_not_wait_for_a_loop_that_is_late() -> None:
    class Latecomer(Echo):
        pass

    letters = DeadLetters()
    letters.interval = 0.5
    with capture_logs() as lines:
        letters.count(Latecomer, "first")
        letters.count(Latecomer, "has to wait")
        time.sleep(0.6)  # noqa: ASYNC251  # the loop stalls
        letters.count(Latecomer, "tells of both")
        await asyncio.sleep(0.01)  # what would have told is late, and finds nothing to tell
    assert counts_of(Latecomer, lines) == [1, 2]
