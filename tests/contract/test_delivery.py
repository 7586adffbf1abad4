"""Section 5: the rules of delivery (sentences 5.21 to 5.34)."""

import asyncio
import random
import re
import time
from typing import Any

import orjson
import pytest

from tests.contract.talk import Talk, talk, talk_to_two, until
from tests.support.fake_executor import FakeExecutor, TakenTask
from tests.support.redis_server import RedisServer
from tests.support.service import process_service, running_service

GAP = {"gap_timeout": 1.0, "poll_seconds": 0.05}
SHORT_LEASE = {"visibility_timeout": 0.9}


def answer(words: int) -> list[tuple[str, dict[str, Any]]]:
    """The callbacks of a whole attempt."""
    deltas = [("delta", {"text": f"{number} "}) for number in range(words)]
    return [("started", {}), *deltas, ("completed", {"response": "all of it"})]


async def report(
    each: Talk, task: TakenTask, *reports: tuple[int, int, str, dict[str, Any]]
) -> None:
    """Adds callbacks (attempt, seq, type, data), and waits until they are handled."""
    for attempt, seq, type_, data in reports:
        await each.executor.report(task, type_, data, attempt=attempt, seq=seq)
    await each.handled(task)


async def reasons(each: Talk) -> list[str]:
    """Why callbacks became dead letters, the oldest first."""
    return [letter[b"reason"].decode() for letter in await each.executor.dead_letters("callbacks")]


async def counted(each: Talk, times: int, outcome: str) -> None:
    """Returns once so many callbacks came to an outcome, as `/metrics` tells; never more.

    They are counted a moment after they have left the stream.
    """

    async def is_so() -> bool:
        text = (await each.service.get("/metrics")).body.decode()
        found = re.search(rf'callbacks_total{{outcome="{outcome}"}} (\S+)', text)
        count = 0 if found is None else int(float(found[1]))
        assert count <= times, (outcome, count)
        return count == times

    await until(is_so)


@pytest.mark.parametrize("seed", range(3))
async def test_5_21_twice_late_out_of_order_and_read_by_two_it_comes_out_as_if_nothing_had_happened(
    redis_server: RedisServer, prefix: str, seed: int
) -> None:
    order = random.Random(seed)
    async with talk_to_two(redis_server, prefix) as (each, _):
        task = await each.taken()
        callbacks = list(enumerate(answer(40), start=1))
        callbacks += order.choices(callbacks, k=40)
        order.shuffle(callbacks)
        for seq, (type_, data) in callbacks:
            await each.executor.report(task, type_, data, seq=seq)
        status = await each.service.task_ended(task.task_id)
        await each.handled(task)
        for seq, (type_, data) in callbacks[:5]:  # and late
            await each.executor.report(task, type_, data, seq=seq)
        await each.handled(task)
        assert status["result"]["response"] == "all of it"
        assert await each.told() == [
            ("task_update", {"status": "running", "attempt": 1}),
            *(("agent_delta", {"text": f"{number} "}) for number in range(40)),
            ("agent_response", {"response": "all of it"}),
        ]
        assert await reasons(each) == []


async def test_5_22_a_seq_that_was_handled_is_dropped_whatever_it_says(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(
            each,
            task,
            (1, 2, "delta", {"text": "first"}),
            (1, 2, "delta", {"text": "another"}),
            (1, 1, "completed", {"response": "never"}),
        )
        assert (await each.told())[1:] == [("agent_delta", {"text": "first"})]
        await counted(each, 2, "duplicate")


async def test_5_23_above_the_expected_seq_it_waits(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(each, task, (1, 4, "delta", {"text": "c"}), (1, 3, "delta", {"text": "b"}))
        assert len(await each.told()) == 1
        await report(each, task, (1, 2, "delta", {"text": "a"}))
        assert [data["text"] for _, data in (await each.told())[1:]] == ["a", "b", "c"]


async def test_5_23_a_gap_that_lasts_fails_the_task(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix, execution=SHORT_LEASE, callbacks=GAP) as each:
        task = await each.started()
        began = await each.now_ms()
        await report(each, task, (1, 3, "delta", {"text": "never told"}))
        status = await each.service.task_ended(task.task_id)
        assert await each.now_ms() - began >= 1000
        assert (status["status"], status["error"]["error_type"]) == ("failed", "callback_gap")
        assert status["result"] is None
        (end,) = await each.ends(task)
        assert end["data"].items() >= {"code": "task_failed", "error_type": "callback_gap"}.items()


async def test_5_23_a_newer_attempt_ends_the_wait(redis_server: RedisServer, prefix: str) -> None:
    gap = {**GAP, "gap_timeout": 2.5}  # the newer attempt has to begin before that
    async with talk(redis_server, prefix, execution=SHORT_LEASE, callbacks=gap) as each:
        task, other = await each.started(), await each.started(if_busy="parallel")
        await report(each, task, (1, 3, "delta", {"text": "waits in vain"}))
        await report(each, other, (1, 3, "delta", {"text": "waits in vain, too"}))
        await report(each, task, (2, 1, "started", {}))
        assert (await each.service.task_ended(other.task_id))["status"] == "failed"
        await report(each, task, (2, 2, "completed", {"response": "x"}))
        assert (await each.service.status(task.task_id))["status"] == "completed"


async def test_5_24_an_older_attempt_is_fenced_off(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(
            each,
            task,
            (1, 2, "delta", {"text": "old"}),
            (2, 1, "started", {}),
            (1, 3, "delta", {"text": "stale"}),
            (1, 4, "completed", {"response": "stale"}),
            (1, 4, "cancelled", {}),
            (2, 2, "delta", {"text": "new"}),
            (2, 3, "completed", {"response": "new"}),
        )
        status = await each.service.status(task.task_id)
        assert (status["attempt"], status["result"]["response"]) == (2, "new")
        assert [
            data.get("text") for type_, data in await each.told() if type_ == "agent_delta"
        ] == [
            *("old", "new"),
        ]
        assert len(await each.ends(task)) == 1


@pytest.mark.parametrize(
    "first", [(1, "started", {}), (1, "delta", {"text": "x"}), (2, "delta", {"text": "x"})]
)
async def test_5_25_a_newer_attempt_begins_with_one_update_that_resets(
    redis_server: RedisServer, prefix: str, first: tuple[int, str, dict[str, Any]]
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(each, task, (1, 2, "delta", {"text": "forget this"}))
        await report(each, task, (2, *first), (2, *first))
        told = (await each.told())[2:]
        reset = ("task_update", {"status": "running", "attempt": 2, "reset": True})
        assert told[0] == reset
        assert told.count(reset) == 1
        assert all(data.get("status") is None for _, data in told[1:])
        await report(each, task, (2, 1, "started", {}), (2, 2, "delta", {"text": "kept"}))
        assert await each.cancel(task.task_id) == (202, "cancelling")
        await report(each, task, (2, 3, "cancelled", {}))
        result = (await each.service.status(task.task_id))["result"]
        assert "forget" not in result["response"]  # the newest attempt's text alone is kept


async def test_5_26_what_comes_after_the_end_or_for_nobody_is_dropped_and_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(each, task, (1, 2, "completed", {"response": "x"}))
        told = await each.told()
        await report(
            each,
            task,
            (1, 3, "delta", {"text": "late"}),
            (2, 1, "started", {}),
            (1, 2, "failed", {"error": {"type": "t", "message": "m"}}),
        )
        nobody = "00000000-0000-4000-8000-000000000000"
        await each.executor.report(task, "delta", {"text": "x"}, seq=1, task_id=nobody)
        await each.handled(task)
        assert await each.told() == told
        assert (await each.service.status(task.task_id))["status"] == "completed"
        await counted(each, 3, "late")
        await counted(each, 1, "unknown")
        assert await reasons(each) == []


USELESS: list[tuple[dict[str, Any], str]] = [
    ({"data": b"no JSON"}, "unreadable"),
    ({"data": b"[]"}, "unreadable"),
    ({"data": b'{"text":5}'}, "unreadable"),
    ({"data": b'{"text":"\xff"}'}, "unreadable"),
    ({"data": None}, "unreadable"),
    ({"type": "surprise"}, "unknown_type"),
    ({"type": None}, "unreadable"),
    ({"tenant_id": None}, "unreadable"),
    ({"session_id": "no id!"}, "unreadable"),
]


async def add_entry(each: Talk, task: TakenTask, **changes: Any) -> None:
    """Adds the second callback of a task, changed; a field that is None is missing."""
    entry = {
        "task_id": task.task_id,
        "tenant_id": "acme",
        "session_id": task.action["session_id"],
        "attempt": 1,
        "seq": 2,
        "type": "delta",
        "data": b'{"text":"x"}',
        **changes,
    }
    await each.executor.add(
        task, {name: value for name, value in entry.items() if value is not None}
    )


async def test_5_27_what_cannot_be_used_is_set_aside_and_counts_as_received(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        for number, (changes, reason) in enumerate(USELESS):
            session = f"acme/s-{number}"
            task = await each.started(session)
            await add_entry(each, task, **changes)
            await report(each, task, (1, 3, "delta", {"text": "behind it"}))
            assert (await reasons(each))[number:] == [reason], changes
            assert (await each.told(session))[1:] == [("agent_delta", {"text": "behind it"})]


async def test_5_27_a_mismatch_touches_nothing(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        await each.sent("other/s-1")  # another tenant's, and another of its own: they exist
        await each.sent("acme/s-2")
        await each.executor.take()
        await each.executor.take()
        task = await each.started()
        mistaken = [
            {"type": type_, "seq": seq, **changes}
            for changes in ({"tenant_id": "other"}, {"session_id": "s-2"}, {"session_id": "s-3"})
            for type_ in ("delta", "completed", "nonsense")
            for seq in (2, 3)
        ]
        for changes in mistaken:
            await add_entry(each, task, **changes)
        await report(each, task, (1, 2, "delta", {"text": "the real one"}))
        assert await reasons(each) == ["mismatch"] * len(mistaken)
        assert (await each.told())[1:] == [("agent_delta", {"text": "the real one"})]
        for session in ("other/s-1", "acme/s-2", "acme/s-3"):
            assert await each.told(session) == []
        assert (await each.service.status(task.task_id))["status"] == "running"


NOWHERE: list[dict[str, Any]] = [
    *({"seq": seq} for seq in (0, -1, "x", "2.0", "", 2**64, None)),
    *({"attempt": attempt} for attempt in (4, 0, -1, "", "one", None)),
    *({"task_id": task_id} for task_id in ("", "no id!", b"\xff", None)),
]


async def test_5_28_a_place_that_cannot_be_counts_for_nothing(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        for changes in NOWHERE:
            await add_entry(each, task, type="completed", data=b'{"response":"x"}', **changes)
        await report(each, task, (1, 2, "delta", {"text": "the real one"}))
        assert await reasons(each) == ["unreadable"] * len(NOWHERE)
        assert (await each.told())[1:] == [("agent_delta", {"text": "the real one"})]


UNUSABLE_ENDS = [
    ("completed", b"no JSON", "unreadable"),
    ("completed", b'{"response":5}', "unreadable"),
    ("failed", b'{"error":"text"}', "unreadable"),
    ("cancelled", b"[]", "unreadable"),
    ("completed", b'{"response":"' + b"x" * 3000 + b'"}', "too_large"),
]


async def test_5_29_and_5_30_a_terminal_callback_that_is_set_aside_ends_its_task_as_failed(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, callbacks={"max_bytes": 2048}) as each:
        for number, (type_, data, reason) in enumerate(UNUSABLE_ENDS):
            task = await each.started(f"acme/s-{number}")
            await each.executor.report(task, "delta", {"text": "so far"})
            await each.executor.report(task, type_, data)
            status = await each.service.task_ended(task.task_id)
            assert (status["status"], status["error"]["error_type"]) == ("failed", reason)
            assert status["result"] == {"response": "so far", "partial": True}
            await each.handled(task)
            assert (await reasons(each))[number:] == [reason]
            assert len(await each.ends(task)) == 1


async def test_5_29_only_the_newest_attempt_can_end_its_task_like_that(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(each, task, (2, 1, "started", {}))
        await each.executor.report(task, "completed", b"no JSON", attempt=1, seq=2)
        await each.handled(task)
        assert (await each.service.status(task.task_id))["status"] == "running"
        assert await reasons(each) == ["unreadable"]


async def test_5_30_a_large_callback_is_set_aside_and_one_of_the_limit_is_not(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, callbacks={"max_bytes": 2048}) as each:
        task = await each.started()
        for size in (2048, 2049):
            text = "x" * (size - len('{"text":""}'))
            await each.executor.report(task, "delta", {"text": text})
        await each.executor.report(task, "delta", {"text": "goes on"})
        await each.handled(task)
        assert [len(data["text"]) for _, data in (await each.told())[1:]] == [2037, 7]
        assert await reasons(each) == ["too_large"]


@pytest.mark.parametrize(
    ("count", "data"), [(10_000, b'{"text":"x"}'), (8, b'{"text":"%b"}' % (b"x" * 1_048_560))]
)
async def test_5_31_as_much_may_wait_for_a_gap_and_more_ends_the_task(
    redis_server: RedisServer, prefix: str, count: int, data: bytes
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.add_deltas(task, range(3, 3 + count), data)
        assert (await each.service.status(task.task_id))["status"] == "running"
        await each.add_deltas(task, [3 + count], data)
        status = await each.service.status(task.task_id)
        assert (status["status"], status["error"]["error_type"]) == ("failed", "callback_gap")
        await until(lambda: each.redis.exists(f"{prefix}cancel:{task.task_id}"))
        assert not [key async for key in each.redis.scan_iter(f"{prefix}*parked*")]


async def test_5_32_streams_do_not_grow(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each:
        for _ in range(3):
            task = await each.started()
            await each.executor.report(task, "nonsense")
            await each.executor.report(task, "delta", {"text": "x"}, tenant_id="other", seq=9)
            await each.executor.complete(task)
            await each.executor.push(b"nonsense")
            await each.service.task_ended(task.task_id)
        streams = [task.action["callback_stream"], f"{prefix}actions", task.stream]

        async def are_empty() -> bool:
            groups = [group for name in streams for group in await each.redis.xinfo_groups(name)]
            assert len(groups) == len(streams)
            lengths = [await each.redis.xlen(name) for name in streams]
            return not any(lengths) and not any(group["pending"] for group in groups)

        await until(are_empty)


async def test_5_33_a_dead_letter_says_which_stream_it_came_from(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await report(each, task, (1, 2, "nonsense", {}))
        for action in (b"no JSON", b"{}", orjson.dumps({"action_type": "chat.send_message"})):
            await each.executor.push(action)

        async def all_letters() -> Any:
            letters = await each.executor.dead_letters("callbacks")
            return letters if len(letters) == 4 else None

        of_callback, *of_pushes = await until(all_letters)
        assert of_callback[b"stream"].decode() == task.action["callback_stream"]
        assert of_callback[b"task_id"].decode() == task.task_id
        assert {letter[b"reason"] for letter in of_pushes} == {b"bad_action"}
        assert {letter[b"stream"].decode() for letter in of_pushes} == {f"{prefix}actions"}


@pytest.mark.alone
async def test_5_34_what_a_killed_instance_had_taken_another_has_done_within_10_seconds(
    redis_server: RedisServer, prefix: str
) -> None:
    environ = {"FAILPOINTS": "callbacks.before_apply=exit"}
    async with (
        process_service(redis_server.url, prefix, environ=environ) as doomed,
        FakeExecutor(redis_server.url, prefix) as executor,
    ):
        task_id = (await doomed.send()).json["task_id"]
        task = await executor.take()
        await executor.stream_answer(task, "x")
        await executor.complete(task)
        assert await doomed.exited() == 9
        died = time.monotonic()
        async with running_service(redis_server.url, prefix) as other:
            async with asyncio.timeout(20):
                assert (await other.task_ended(task_id))["status"] == "completed"
            assert time.monotonic() - died <= 10
