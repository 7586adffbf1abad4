"""Asking an actor from the edge: each way in which no answer comes has its error."""

import asyncio

import pytest

from actors.loop_actor import LoopActor
from common.domain.errors import Draining, OrchestratorError, RedisUnavailable, TaskNotFound
from orchestrator import app
from orchestrator.app import REQUEST_ID, Phase, ask
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


class Moody(LoopActor):
    async def on_receive(self, message: object) -> object:
        if isinstance(message, Exception):
            raise message
        if isinstance(message, asyncio.Event):
            await message.wait()
        return message


async def test_an_answer_is_passed_on_and_so_is_a_refusal() -> None:
    ref = Moody.start()
    assert await ask(ref, "hello") == "hello"
    with pytest.raises(TaskNotFound):
        await ask(ref, TaskNotFound())
    await ref.stop()


async def test_an_actor_that_is_gone_means_that_another_instance_is_asked() -> None:
    ref = Moody.start()
    await ref.stop()
    with pytest.raises(Draining):
        await ask(ref, "hello")


async def test_an_answer_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "ANSWER_WITHIN", 0.05)
    ref, never = Moody.start(), asyncio.Event()
    with pytest.raises(RedisUnavailable):
        await ask(ref, never)
    never.set()
    await ref.stop()


async def test_new_work_is_refused_by_whoever_does_not_serve(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        instance = service.service.app
        instance.refuse_new_work()
        for phase in (Phase.STARTING, Phase.DRAINING, Phase.FAILED):
            instance.phase = phase
            with pytest.raises(OrchestratorError) as caught:
                instance.refuse_new_work()
            assert caught.value.http_status == 503
        instance.phase = Phase.SERVING
        assert instance.uptime_seconds > 0


def test_a_request_id_is_one_word() -> None:
    assert REQUEST_ID.fullmatch("a.B-9_")
    assert not REQUEST_ID.fullmatch("a\n")
