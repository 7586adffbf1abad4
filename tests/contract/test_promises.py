"""Section 6: what is promised. Faults of processes and of Redis are tried in tests/faults."""

import itertools
import uuid

import orjson

from tests.contract.talk import is_end, replayed, talk, talk_to_two, until
from tests.support.client import Frame, close_code, frames_until, next_frame, say
from tests.support.redis_server import RedisServer


async def test_6_2_across_reconnects_to_any_instance_every_event_comes_once_and_in_order(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk_to_two(redis_server, prefix) as (each, other):
        epoch = (await replayed(other))[0]["data"]["epoch"]
        task = await each.started()
        seen: list[Frame] = []
        for instance, word in zip(itertools.cycle((each.service, other)), range(12), strict=False):
            last = seen[-1]["offset"] if seen else 0
            options = {"max_queue": None}
            async with instance.connect("acme/s-1", options, epoch=epoch, offset=last) as socket:
                ack = (await next_frame(socket))["data"]
                assert (ack["recovered"], ack["epoch"]) == (True, epoch)
                await each.executor.report(task, "delta", {"text": str(word)})
                seen.append(await next_frame(socket))  # and leaves with more on its way
        await each.executor.complete(task)
        await each.service.task_ended(task.task_id)
        _, *rest = await replayed(other, epoch=epoch, offset=seen[-1]["offset"])
        assert seen + rest == await each.frames()
        assert is_end(rest[-1])


async def test_6_2_a_session_that_expired_is_told_of_and_begins_anew(
    redis_server: RedisServer, prefix: str
) -> None:
    async with talk(redis_server, prefix, sessions={"ttl": 1}) as each:
        # What can be asked about the task and its session is soon gone: it is told while it is.
        async with each.service.connect() as socket:
            epoch = (await next_frame(socket))["data"]["epoch"]
            await each.executor.complete(await each.taken())
            last = (await frames_until(socket, "agent_response"))[-1]["offset"]

        async def has_expired() -> bool:
            return (await each.service.events())["epoch"] is None

        await until(has_expired)
        back = (await replayed(each.service, epoch=epoch, offset=last))[0]["data"]
        assert (back["recovered"], back["offset"]) == (False, 0)
        assert back["epoch"] != epoch


async def test_6_3_tenants_with_the_same_names_do_not_meet(
    redis_server: RedisServer, prefix: str
) -> None:
    key = str(uuid.uuid4())
    async with (
        talk(redis_server, prefix) as each,
        each.joined("one/s") as one,
        each.joined("two/s") as two,
    ):
        tasks = {}
        for tenant in ("one", "two"):
            tasks[tenant] = await each.taken(f"{tenant}/s", message=tenant, key=key)
            await each.executor.stream_answer(tasks[tenant], tenant)
        await each.executor.report(tasks["one"], "typing")
        push = {"tenant_id": "one", "message_data": {"of": "one"}}
        assert (await each.service.post("/api/ws/broadcast", push)).status == 202
        assert (await each.service.post("/api/ws/send", {**push, "session_id": "s"})).status == 202
        for path, body in (
            ("/api/chat/status", {"tenant_id": "two", "task_id": tasks["one"].task_id}),
            ("/api/chat/cancel", {"tenant_id": "two", "task_id": tasks["one"].task_id}),
        ):
            answer = await each.service.post(path, body)
            assert (answer.status, answer.code) == (404, "task_not_found")
        for type_ in ("chat.get_status", "chat.cancel_task"):
            await say(two, type_, "foreign", task_id=tasks["one"].task_id)
            refused = (await frames_until(two, "error"))[-1]
            assert refused["data"]["code"] == "task_not_found"
        for tenant, task in tasks.items():
            await each.executor.complete(task, tenant)
        for tenant, socket in (("one", one), ("two", two)):
            frames = await frames_until(socket, "agent_response")
            assert {frame["tenant_id"] for frame in frames} == {tenant}
            other = {"one": "two", "two": "one"}[tenant]
            assert f'"{other}"' not in orjson.dumps([frame["data"] for frame in frames]).decode()


async def test_6_6_what_one_does_wrong_concerns_nobody_else(
    redis_server: RedisServer, prefix: str
) -> None:
    limits = {"max_bad_frames": 3}
    async with (
        talk(redis_server, prefix, websocket=limits) as each,
        each.service.connect("acme/good", offset=0) as good,
    ):
        async with each.service.connect("acme/bad") as bad:
            for _ in range(3):
                await bad.send("nonsense")
            assert await close_code(bad) == 4413
        assert (await each.service.post("/api/chat/send", b"{")).status == 400
        poisoned, task = await each.taken("acme/poisoned"), await each.taken("acme/good")
        for wrong in (
            b"\xff",
            b"[" * 10_000,
            b'{"text":' + b"9" * 5000 + b"}",
            b'{"text":"\\ud800"}',
        ):
            await each.executor.report(poisoned, "delta", wrong)
            await each.redis.xadd(task.action["callback_stream"], {"nothing": "known"})
            await each.executor.push(wrong)
        await each.executor.stream_answer(task, "fine")
        await each.executor.complete(task, "fine")
        frames = await frames_until(good, "agent_response")
        offsets = [frame["offset"] for frame in frames if "offset" in frame]
        assert offsets == [1, 2, 3, 4]
        tree = (await each.service.get("/actors")).json
        assert {child["restarts"] for child in tree["children"]} == {0}
