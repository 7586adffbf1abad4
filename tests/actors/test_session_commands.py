"""What a client asks for on its connection is answered there, or refused for the right reason."""

import asyncio

import pytest

from actors.session import MAX_UNANSWERED
from actors.session_messages import CaughtUp, Command, Ping, Refused
from common.domain.actions import ChatGetStatusAction
from common.domain.errors import BadRequest, ValidationFailed
from common.domain.ids import TaskId
from common.failpoints import armed
from tests.actors.instance import RecordingTransport, instance
from tests.support.redis_server import RedisServer
from tests.support.stores import ACME, message


def status_of(task_id: str) -> ChatGetStatusAction:
    return ChatGetStatusAction(tenant_id=ACME, task_id=TaskId(task_id))


async def code_of(transport: RecordingTransport, count: int) -> str:
    code: str = (await transport.answers(count))[-1]["data"]["code"]
    return code


async def test_commands_are_answered_with_what_rest_would_answer(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        action = message()
        ref.tell(Command("send", action))
        ref.tell(Command("unknown", status_of("unknown")))
        ref.tell(Command(None, status_of("unknown")))
        found = {frame["id"]: frame for frame in await transport.answers(2)}
        assert found["send"]["type"] == "ack"
        assert found["send"]["data"]["task_id"] == action.task_id
        assert found["unknown"]["data"]["code"] == "task_not_found"
        await transport.until(lambda: transport.types.count("error") == 2)
        assert (await transport.frame("user_message"))["task_id"] == action.task_id


async def test_a_command_without_an_id_is_done_without_an_ack(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        ref.tell(Command(None, message()))
        await transport.offset(1)
        ref.tell(Command("last", status_of("unknown")))
        await transport.answers(1)
        assert "ack" not in transport.types


async def test_too_many_unanswered_commands_are_refused(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        for number in range(MAX_UNANSWERED + 1):
            ref.tell(Command(str(number), status_of("unknown")))
        found = await transport.answers(MAX_UNANSWERED + 1)
        codes = [frame["data"]["code"] for frame in found]
        assert codes == ["overloaded"] + ["task_not_found"] * MAX_UNANSWERED
        ref.tell(Command("again", status_of("unknown")))
        assert (await transport.answers(len(found) + 1))[-1]["id"] == "again"


async def test_a_router_that_fails_or_is_gone_is_told_as_what_it_is(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        with armed("chat_router.on_batch=raise:1"):
            ref.tell(Command("failed", status_of("t")))
            assert await code_of(transport, 1) == "internal_error"
        await running.router.stop()
        ref.tell(Command("gone", status_of("t")))
        assert await code_of(transport, 2) == "draining"
        assert ref.is_alive()


async def test_a_router_that_stops_before_it_answers_is_told_as_draining(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        with armed("chat_router.on_batch=sleep:0.01"):
            busy = running.router.ask(status_of("t"))
            await asyncio.sleep(0)  # its turn begins
            ref.tell(Command("dropped", status_of("t")))
            await ref.ask(CaughtUp())
            await running.router.stop(drop=True)
        busy.cancel()
        assert await code_of(transport, 1) in ("draining", "task_not_found")


async def test_a_router_that_does_not_answer_in_time_means_redis(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.session.ANSWER_WITHIN", 0.0)
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        ref.tell(Command("slow", status_of("t")))
        assert await code_of(transport, 1) == "redis_unavailable"


async def test_bad_frames_in_a_row_close_the_connection_and_good_ones_excuse_them(
    redis_server: RedisServer, prefix: str
) -> None:
    async with instance(redis_server.url, prefix) as running:
        ref, transport = await running.connect()
        bad = Refused(None, BadRequest("No JSON."), is_bad=True)
        refused = Refused("r", ValidationFailed(errors={"message": ["Missing."]}), is_bad=False)
        for told in (bad, bad, Ping("p"), bad, bad, refused, bad, bad):
            ref.tell(told)
        await ref.ask(CaughtUp())
        assert transport.closed is None
        (error,) = [frame for frame in transport.frames if frame.get("id") == "r"]
        assert error["data"]["errors"] == {"message": ["Missing."]}
        ref.tell(bad)
        assert await transport.close_code() == 4413
        assert running.counters.bad_frames == 7
