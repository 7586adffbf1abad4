"""However tells, asks and turns of the loop alternate: every message is handled once, in order."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.loop_actor import LoopActor
from tests.actors.examples import Diary, SlowDiary
from tests.actors.test_turns import BOTH, Batches


@BOTH
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["tell", "ask", "yield"]), max_size=60))
def test_every_message_is_handled_once_and_in_order(batches: type[Batches], ops: list[str]) -> None:
    for actor_class in (batches, Diary, SlowDiary):
        book: list[Any] = []
        asyncio.run(_play(actor_class, book, ops))
        handled = [m for batch in book for m in batch] if actor_class is batches else book
        assert handled == [n for n, op in enumerate(ops) if op != "yield"]


async def _play(actor_class: type[LoopActor], book: list[Any], ops: list[str]) -> None:
    ref = actor_class.start(book)
    for number, op in enumerate(ops):
        if op == "yield":
            await asyncio.sleep(0)
        elif op == "tell":
            ref.tell(number)
        else:
            ref.ask(number)
    await ref.stop()
