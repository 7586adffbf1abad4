"""Sections 3 and 8: what a tenant's tier allows, and how a refusal is told."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.contract.lines import accepted, limited, run
from tests.contract.talk import Talk, talk, talk_to_two, until
from tests.contract.used import usage
from tests.support.client import (
    Address,
    Answer,
    Frame,
    frames_until,
    next_frame,
    say,
)
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.service import process_service

DAY = 86_400
A_TEST = 20  # seconds; more than one takes
MS, MICROS = 1e12, 1e6  # more than any number but a time in ms; in a second
KEY = "5b6f2a34-9d0c-4a7e-8f21-6c1d2e3f4051"


def check_refusal(answer: Answer, code: str, *, limit: int, reset: tuple[float, float]) -> None:
    """A 429 of this code whose headers are right: nothing is left, and until when."""
    assert (answer.status, answer.code) == (429, code), answer
    assert answer.json["detail"]
    assert answer.headers["RateLimit-Limit"] == str(limit)
    assert answer.headers["RateLimit-Remaining"] == "0"
    assert reset[0] <= int(answer.headers["RateLimit-Reset"]) <= reset[1]
    assert reset[0] <= int(answer.headers["Retry-After"]) <= reset[1]
    assert int(answer.headers["Retry-After"]) >= 1


async def refused(service: Address, code: str, *, limit: int, reset: tuple[float, float]) -> None:
    """The tenant's next message is, with a 429 that is right."""
    check_refusal(await service.send(), code, limit=limit, reset=reset)


async def use_tokens(each: Talk, used: int) -> None:
    """A task of the tenant that used so many, a third of them for its input."""
    before = await _tokens(each)
    task = await each.started("acme/spender", if_busy="parallel")
    usage = {"input_tokens": used // 3, "output_tokens": used - used // 3, "cost": 0.1}
    await each.executor.report(task, "completed", {"response": "done", "usage": usage})
    await each.executor.finish(task)
    await until(lambda: _are_counted(each, before + used))


async def _tokens(each: Talk) -> int:
    found = await usage(each.service)
    return int(found.get("input_tokens", 0) + found.get("output_tokens", 0))


async def _are_counted(each: Talk, tokens: int) -> bool:
    return await _tokens(each) == tokens


async def until_midnight(each: Talk) -> float:
    """Seconds of this UTC day that are left, by Redis's clock."""
    return DAY - (await each.now_ms()) / 1000 % DAY


async def early_enough(each: Talk) -> None:
    """Returns at once, but for the end of a UTC day: then a new one begins first.

    What was used on a day is forgotten with it, and a test of that must not see two of them.
    """

    async def is_early() -> bool:
        return await until_midnight(each) >= A_TEST

    await until(is_early, within=A_TEST + 5)


async def time_passes(each: Talk, seconds: float) -> None:
    """What is remembered of the tenant's past lies so much further back."""
    async for key in each.redis.scan_iter(f"{each.prefix}*{{acme}}*", _type="zset"):
        for member, score in await each.redis.zrange(key, 0, -1, withscores=True):
            if score > MS:
                unit = MICROS if score > MS * 1000 else 1000
                await each.redis.zadd(key, {member: score - seconds * unit}, xx=True)


# The codes, and their headers


@pytest.mark.parametrize(
    ("setting", "window"), [("requests_per_minute", 60), ("requests_per_hour", 3600)]
)
async def test_more_requests_than_a_window_holds_are_refused_until_the_first_has_left_it(
    redis_server: RedisServer, prefix: str, setting: str, window: int
) -> None:
    async with talk(redis_server, prefix, **limited(**{setting: 3})) as each:
        await accepted(each.service, 3)
        for _ in range(2):
            await refused(each.service, "rate_limited", limit=3, reset=(window - 10, window))
        await accepted(each.service, 4, "other")


async def test_the_window_slides(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix, **limited(requests_per_minute=3)) as each:
        await accepted(each.service, 1)
        await time_passes(each, 40)
        await accepted(each.service, 2)
        await refused(each.service, "rate_limited", limit=3, reset=(10, 20))
        await time_passes(each, 21)  # the first has left it, the others have not
        await accepted(each.service, 1)
        await refused(each.service, "rate_limited", limit=3, reset=(29, 39))


async def test_of_two_windows_the_one_that_is_full_is_told_of(
    redis_server: RedisServer, prefix: str
) -> None:
    settings = limited(requests_per_minute=2, requests_per_hour=3)
    async with talk(redis_server, prefix, **settings) as each:
        await accepted(each.service, 2)
        await refused(each.service, "rate_limited", limit=2, reset=(50, 60))
        await time_passes(each, 61)
        await accepted(each.service, 1)
        await refused(each.service, "rate_limited", limit=3, reset=(3520, 3540))


async def test_tokens_that_were_used_this_day_are_counted_from_what_agents_report(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(tokens_per_day=100)) as each:
        await early_enough(each)
        await use_tokens(each, 60)
        await use_tokens(each, 39)
        await accepted(each.service, 1)  # one is left, and nobody knows what this one uses
        await run(each, await each.executor.take())
        await use_tokens(each, 6)
        left = await until_midnight(each)
        answer = await each.service.send()
        reset = (await until_midnight(each), left + 1)
        check_refusal(answer, "quota_exceeded", limit=100, reset=reset)
        await accepted(each.service, 1, "other")


async def test_a_task_that_is_reported_twice_uses_its_tokens_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(tokens_per_day=100)) as each:
        task = await each.started()
        usage = {"usage": {"input_tokens": 40, "output_tokens": 20, "cost": 0}}
        for _ in range(3):
            await each.executor.report(task, "completed", usage, seq=2)
        await each.executor.finish(task)
        await until(lambda: _are_counted(each, 60))
        await each.handled(task)
        await accepted(each.service, 1)


async def test_a_full_queue_is_told_with_its_size(redis_server: RedisServer, prefix: str) -> None:
    settings = limited(max_queued=2, max_running=1)
    async with talk(redis_server, prefix, **settings) as each:
        await accepted(each.service, 3)
        await refused(each.service, "queue_full", limit=2, reset=(1, 3600))


async def test_the_shipped_tiers_are_as_the_contract_says(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, tenants={"acme": {"tier": "free"}}) as each:
        await accepted(each.service, 6)  # one runs, five wait
        await refused(each.service, "queue_full", limit=5, reset=(1, 3600))
        for _ in range(6):
            await run(each, await each.executor.take())
        await accepted(each.service, 4)
        await refused(each.service, "rate_limited", limit=10, reset=(40, 60))


# By WebSocket


async def answer_to(socket: Any, id_: str, **data: Any) -> Frame:
    """What a message by frame is answered with."""
    await say(socket, "chat.send_message", id_, agent_id="echo", message="hello", **data)
    while (frame := await next_frame(socket)).get("id") != id_:
        pass
    return frame


@pytest.mark.parametrize(
    ("code", "limits", "fitting"),
    [
        ("rate_limited", {"requests_per_minute": 2}, 2),
        ("rate_limited", {"requests_per_hour": 2}, 2),
        ("queue_full", {"max_queued": 1, "max_running": 1}, 2),
        ("quota_exceeded", {"tokens_per_day": 10}, 0),
    ],
)
async def test_by_websocket_a_refusal_is_an_error_frame_with_the_code(
    redis_server: RedisServer, prefix: str, code: str, limits: dict[str, int], fitting: int
) -> None:
    settings: dict[str, Any] = {**limited(**limits), "websocket": {"max_bad_frames": 2}}
    async with talk(redis_server, prefix, **settings) as each:
        if code == "quota_exceeded":
            await early_enough(each)
            await use_tokens(each, 10)
        async with each.service.connect("acme/s-1") as socket:
            for number in range(fitting):
                assert (await answer_to(socket, f"fits-{number}"))["type"] == "ack"
            for number in range(4):  # more than may be bad in a row: these are none
                frame = await answer_to(socket, f"refused-{number}")
                assert frame["type"] == "error"
                assert "offset" not in frame
                assert frame["data"]["code"] == code
                assert frame["data"]["message"]
            await say(socket, "ping", "still-here")
            assert (await frames_until(socket, "pong"))[-1]["id"] == "still-here"
        told = await each.frames("acme/s-1")
        assert len([frame for frame in told if frame["type"] == "user_message"]) == fitting


# What does not count


async def test_a_message_that_is_refused_for_another_reason_takes_no_place(
    redis_server: RedisServer, prefix: str
) -> None:
    agents = {"echo": {"tenants": ["acme"]}}
    async with talk(redis_server, prefix, **limited(requests_per_minute=3), agents=agents) as each:
        send = each.service.send
        first = await send("acme/s-1", key=KEY)
        statuses = [
            (await send("acme/s-1", "another body", key=KEY)).status,
            (await send("acme/s-1", if_busy="reject")).status,
            (await send("acme/s-1", message="")).status,
            (await send("acme/s-1", agent_id="nobody")).status,
            (await each.service.post("/api/chat/send", b"{")).status,
        ]
        assert statuses == [409, 409, 422, 404, 400]
        again = await send("acme/s-1", key=KEY)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json == first.json
        await accepted(each.service, 2)
        assert (await send("acme/s-9")).code == "rate_limited"


async def test_refusals_do_not_put_off_the_end_of_a_limit(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(requests_per_minute=2)) as each:
        await accepted(each.service, 2)
        for _ in range(5):
            assert (await each.service.send()).status == 429
        await time_passes(each, 61)
        await accepted(each.service, 2)
        assert (await each.service.send()).status == 429


@pytest.mark.parametrize(
    "limits",
    [
        {"requests_per_minute": 2},
        {"requests_per_hour": 2},
        {"max_queued": 1, "max_running": 1},
        {"tokens_per_day": 10},
    ],
)
async def test_what_was_taken_is_found_by_its_key_whatever_limit_is_reached_since(
    redis_server: RedisServer, prefix: str, limits: dict[str, int]
) -> None:
    async with talk(redis_server, prefix, **limited(**limits)) as each:
        await early_enough(each)
        first = await each.service.send("acme/s-1", key=KEY)
        if "tokens_per_day" in limits:
            await run(each, await each.executor.take())
            await use_tokens(each, 10)
        else:
            await accepted(each.service, 1)
        assert (await each.service.send("acme/s-2", key=KEY)).status == 429  # another session's
        again = await each.service.send("acme/s-1", key=KEY)
        assert (again.status, again.json) == (202, first.json)
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await each.service.send("acme/s-1", "another body", key=KEY)
        assert (other.status, other.code) == (409, "idempotency_conflict")


async def test_a_key_that_was_refused_may_be_taken_later(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(requests_per_minute=1)) as each:
        await accepted(each.service, 1)
        assert (await each.service.send("acme/s-1", key=KEY)).status == 429
        await time_passes(each, 61)
        answer = await each.service.send("acme/s-1", key=KEY)
        assert answer.status == 202
        assert "Idempotent-Replayed" not in answer.headers


async def test_a_dead_letter_that_is_requeued_counts_like_any_message(
    redis_server: RedisServer, prefix: str
) -> None:
    settings = {**limited(requests_per_minute=2), "execution": {"max_attempts": 1}}
    async with talk(redis_server, prefix, **settings) as each:
        for number in range(2):
            task = await each.started(f"acme/s-{number}")
            await each.executor.count_attempt(task.task_id)
            assert (await each.service.task_ended(task.task_id))["status"] == "failed"

        async def letters() -> list[Any]:
            found = (await each.service.get("/dead-letters/execute")).json["items"]
            return [letter["id"] for letter in found]

        await eventually(lambda: _are(letters, 2))
        first, second = await letters()
        path = f"/dead-letters/execute/{first}/requeue"
        check_refusal(await each.service.post(path, {}), "rate_limited", limit=2, reset=(30, 60))
        assert first in await letters()  # nothing is lost by asking
        await time_passes(each, 61)
        assert (await each.service.post(path, {})).status == 202
        assert await letters() == [second]


async def _are(look: Any, count: int) -> bool:
    return len(await look()) == count


# Several instances


async def test_instances_share_a_tenants_limits(redis_server: RedisServer, prefix: str) -> None:
    settings = limited(requests_per_minute=3)
    async with talk_to_two(redis_server, prefix, **settings) as (each, other):
        await accepted(each.service, 2)
        await accepted(other, 1)
        for service in (each.service, other):
            assert (await service.send()).code == "rate_limited"


async def test_limits_outlast_the_process_that_counted(
    redis_server: RedisServer, prefix: str
) -> None:
    settings = limited(requests_per_minute=3, max_running=1, max_queued=1)
    async with process_service(redis_server.url, prefix, **settings) as first:
        await accepted(first, 2)
        assert (await first.send()).code == "queue_full"
        await first.kill()
    async with talk(redis_server, prefix, **settings) as each:
        assert (await each.service.send()).code == "queue_full"
        for _ in range(2):
            await run(each, await each.executor.take())
        await accepted(each.service, 1)
        await refused(each.service, "rate_limited", limit=3, reset=(20, 60))


async def test_a_refusal_is_the_same_problem_as_any_other(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, **limited(requests_per_minute=1)) as each:
        answers = await asyncio.gather(*(each.service.send(f"acme/s-{n}") for n in range(2)))
        (refused,) = [answer for answer in answers if answer.status != 202]
        problem = orjson.loads(refused.body)
        assert problem.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
        assert problem["request_id"] == refused.headers["X-Request-ID"]
