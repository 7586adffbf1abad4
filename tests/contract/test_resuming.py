"""Section 4: resume, compaction, and how a connection ends (sentences 4.23 to 4.32)."""

import asyncio
from typing import Any

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.talk import Talk, is_end, replayed, talk, until
from tests.support.client import Frame, close_code, frames_until, next_frame, say
from tests.support.fake_executor import TakenTask
from tests.support.raw import raw_websocket
from tests.support.redis_server import RedisServer


async def pushed(each: Talk, count: int, session: str = "s-1") -> None:
    """So many events of a session."""
    for number in range(count):
        body = {"tenant_id": "acme", "session_id": session, "message_data": {"n": number}}
        assert (await each.service.post("/api/ws/send", body)).status == 202


async def epoch_of(each: Talk) -> str:
    epoch: str = (await replayed(each.service))[0]["data"]["epoch"]
    return epoch


async def test_4_23_and_4_24_a_client_that_resumes_gets_every_later_event_then_live_ones(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        epoch = await epoch_of(each)
        await pushed(each, 5)
        for offset in range(6):
            async with each.service.connect(epoch=epoch, offset=offset) as socket:
                ack = (await next_frame(socket))["data"]
                before = ack["offset"]
                assert (ack["recovered"], ack["replayed"]) == (True, before - offset)
                await pushed(each, 1)
                frames = [await next_frame(socket) for _ in range(before - offset + 1)]
                expected = list(range(offset + 1, before + 2))
                assert [frame["offset"] for frame in frames] == expected


async def test_4_24_events_that_happen_during_the_replay_follow_it_without_a_hole(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.executor.stream_answer(task, *map(str, range(300)))
        epoch = await epoch_of(each)

        async def stream_on() -> None:
            for number in range(300, 600):
                await each.executor.report(task, "delta", {"text": str(number)})
            await each.executor.complete(task)

        streaming = asyncio.create_task(stream_on())
        seen: list[Frame] = []
        while not seen or not is_end(seen[-1]):
            last = seen[-1]["offset"] if seen else 0
            # Without a bound to what it has not looked at, the client closes at once.
            options = {"max_queue": None}
            async with each.service.connect(
                "acme/s-1", options, epoch=epoch, offset=last
            ) as socket:
                assert (await next_frame(socket))["data"]["recovered"] is True
                for _ in range(37):  # then the line drops, and it comes back
                    seen.append(await next_frame(socket))
                    if is_end(seen[-1]):
                        break
        await streaming
        assert seen == await all_frames(each)


async def all_frames(each: Talk) -> list[Frame]:
    """The whole log, page by page."""
    frames: list[Frame] = []
    while True:
        page = await each.service.events(offset=frames[-1]["offset"] if frames else 0, limit=1000)
        if not page["events"]:
            return frames
        frames += page["events"]


@pytest.mark.parametrize("case", ["another epoch", "trimmed", "beyond the end"])
async def test_4_25_where_a_hole_would_be_it_is_told_and_only_live_events_follow(
    redis_server: RedisServer, prefix: str, case: str
) -> None:
    async with talk(redis_server, prefix, sessions={"max_events": 3}) as each:
        epoch = await epoch_of(each)
        await pushed(each, 6)
        query: dict[str, Any] = {
            "another epoch": {"epoch": "of-another-life", "offset": 5},
            "trimmed": {"epoch": epoch, "offset": 2},
            "beyond the end": {"epoch": epoch, "offset": 7},
        }[case]
        async with each.service.connect(**query) as socket:
            ack = (await next_frame(socket))["data"]
            assert (ack["recovered"], ack["offset"], ack["replayed"]) == (False, 6, 0)
            assert ack["epoch"] == epoch
            await pushed(each, 1)
            assert (await next_frame(socket))["offset"] == 7
        page = await each.service.events(offset=0)  # from where it loads what is left
        assert [frame["offset"] for frame in page["events"]] == [5, 6, 7]
        assert page["oldest_offset"] == 5


async def test_4_26_a_connection_that_asks_for_nothing_is_live_only(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        await pushed(each, 2)
        async with each.service.connect() as socket:
            ack = (await next_frame(socket))["data"]
            assert (ack["recovered"], ack["offset"], ack["replayed"]) == (False, 2, 0)
            await pushed(each, 1)
            assert (await next_frame(socket))["offset"] == 3


async def test_4_27_offset_0_alone_brings_all_that_is_kept_and_says_if_that_is_everything(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, sessions={"max_events": 3}) as each:
        for already, recovered, expected in (
            (0, True, []),
            (3, True, [1, 2, 3]),
            (4, False, [2, 3, 4]),
        ):
            await pushed(each, already - (await each.service.events())["last_offset"])
            ack, *frames = await replayed(each.service, offset=0)
            assert ack["data"]["recovered"] is recovered
            assert [frame["offset"] for frame in frames] == expected


@pytest.mark.parametrize("query", [{"offset": 1}, {"epoch": "e"}])
async def test_4_28_half_a_place_in_the_log_is_a_bad_request(
    redis_server: RedisServer, prefix: str, query: dict[str, Any]
) -> None:
    async with talk(redis_server, prefix) as each:
        with pytest.raises(InvalidStatus) as caught:
            async with each.service.connect(**query):
                pass
        assert caught.value.response.status_code == 400
        assert orjson.loads(caught.value.response.body)["code"] == "bad_request"


async def test_4_29_only_plain_deltas_of_one_task_and_attempt_are_joined(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        one, other = [await each.started(if_busy="parallel") for _ in range(2)]
        for task, data in (
            *((one, {"text": "a"}), (one, {"text": "b"}), (other, {"text": "c"})),
            *((other, {"text": "d"}), (one, {"text": "e"}), (one, {"text": "f", "part": 2})),
            *((one, {"text": "g"}), (one, {"text": "h"})),
        ):
            await each.executor.report(task, "delta", data)
        again = await each.executor.count_attempt(one.task_id)
        for seq, text in enumerate(("i", "j"), start=1):
            await each.executor.report(one, "delta", {"text": text}, attempt=again, seq=seq)
        await each.handled(one)
        ack, *joined = await replayed(each.service, offset=0, compact=1)
        deltas = [frame for frame in joined if frame["type"] == "agent_delta"]
        assert [frame["data"]["text"] for frame in deltas] == [
            *("ab", "cd", "e", "f", "gh", "ij"),
        ]
        assert [frame.get("from_offset") for frame in deltas] == [5, 7, None, None, 11, 14]
        assert {frame["task_id"] for frame in deltas[:2]} == {one.task_id, other.task_id}
        covered = [
            offset
            for frame in joined
            for offset in range(frame.get("from_offset") or frame["offset"], frame["offset"] + 1)
        ]
        assert covered == list(range(1, ack["data"]["offset"] + 1))


async def test_4_29_live_deltas_come_one_by_one(redis_server: RedisServer, prefix: str) -> None:
    async with talk(redis_server, prefix) as each, each.joined(compact=1) as socket:
        task = await each.started()
        await frames_until(socket, "task_update")
        for text in ("a", "b"):
            await each.executor.report(task, "delta", {"text": text})
        frames = [await next_frame(socket) for _ in range(2)]
        assert [frame["data"]["text"] for frame in frames] == ["a", "b"]
        assert not any("from_offset" in frame for frame in frames)


async def test_4_30_joining_in_the_middle_of_5000_deltas_costs_two_or_three_frames(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        task = await each.started()
        await each.add_deltas(task, range(2, 5002), b'{"text":"word "}')
        epoch = await epoch_of(each)
        ack, *frames = await replayed(each.service, epoch=epoch, offset=2500, compact=1)
        assert ack["data"]["replayed"] == 2502
        assert 1 <= len(frames) <= 3
        assert "".join(frame["data"]["text"] for frame in frames) == "word " * 2502
        assert (frames[0]["from_offset"], frames[-1]["offset"]) == (2501, 5002)
        history = await each.service.events(offset=2500, limit=100, compact=1)
        assert len(history["events"]) <= 3
        assert (history["next_offset"], history["last_offset"]) == (5002, 5002)


async def test_4_31_a_frame_too_large_closes_with_1009(
    redis_server: RedisServer, prefix: str
) -> None:
    limit = {"max_message_bytes": 4096}
    async with (
        talk(redis_server, prefix, websocket=limit) as each,
        each.service.connect() as socket,
    ):
        assert (await next_frame(socket))["data"]["max_message_bytes"] == 4096
        await socket.send("x" * 4097)
        assert await close_code(socket) == 1009


async def test_4_31_a_log_that_began_anew_is_4410_and_coming_back_tells(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix) as each:
        async with each.service.connect() as socket:
            ack = await next_frame(socket)
            await pushed(each, 1)
            await next_frame(socket)
            async for key in each.redis.scan_iter(f"{prefix}session:*"):
                await each.redis.delete(key)
            await pushed(each, 1)
            assert await close_code(socket) == 4410
        back, *frames = await replayed(each.service, epoch=ack["data"]["epoch"], offset=1)
        assert (back["data"]["recovered"], frames) == (False, [])


async def stream_much(each: Talk, task: TakenTask) -> None:
    """More than a socket and its peer hold for a reader who does not read."""
    for _ in range(200):
        await each.executor.report(task, "delta", {"text": "x" * 60_000})


async def test_4_31_who_reads_too_slowly_is_closed_with_4008_and_can_resume(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, websocket={"send_buffer_bytes": 65_536}) as each:
        epoch = await epoch_of(each)
        task = await each.started()
        path = f"/ws/acme/s-1?epoch={epoch}&offset=0"
        async with raw_websocket(each.service.port, path, receive_buffer=4096) as slow:
            streaming = asyncio.create_task(stream_much(each, task))

            async def was_found_slow() -> bool:
                stats = (await each.service.get("/ws/stats")).json
                return bool(stats["instance"]["slow_consumers_closed"])

            await until(was_found_slow)  # and now it reads: a close is not kept for it for long
            assert (await slow.frame_of(0x8)).close_code == 4008
        await streaming
        await each.handled(task)
        ack, *frames = await replayed(each.service, epoch=epoch, offset=2)
        assert ack["data"]["recovered"] is True
        assert len(frames) == 200


async def test_4_32_a_client_that_takes_nothing_more_is_cut_off(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, websocket={"send_buffer_bytes": 65_536}) as each:
        task = await each.started()
        path = "/ws/acme/s-1"
        async with raw_websocket(each.service.port, path, receive_buffer=4096):
            await stream_much(each, task)

            async def is_gone() -> bool:
                stats = (await each.service.get("/ws/stats")).json
                return bool(stats["instance"]["connections"] == 0)

            await until(is_gone)
        async with each.service.connect() as socket:  # nobody else noticed
            await say(socket, "ping")
            assert (await frames_until(socket, "pong"))[-1]["type"] == "pong"
