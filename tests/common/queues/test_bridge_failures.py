"""An instance's ear goes on hearing, whatever its tasks stumble over, and says what it was."""

import asyncio
from typing import Any

import pytest
import structlog.testing

from common.queues.bridge import Bridge, Heard, Message
from tests.common.queues.test_bridge import PATIENCE, ear_of, push
from tests.support.follower import eventually
from tests.support.redis_server import RedisServer
from tests.support.stores import SESSION, stores


async def test_a_sink_that_was_cancelled_does_not_end_the_listening(
    redis_server: RedisServer, prefix: str
) -> None:
    """As it is when the actor that was told has just been stopped."""
    told: list[Message] = []
    cancellations = 1

    async def sink(message: Message) -> None:
        nonlocal cancellations
        if cancellations and isinstance(message, Heard):
            cancellations -= 1
            raise asyncio.CancelledError
        told.append(message)

    async with stores(redis_server.url, prefix) as each:
        bridge = Bridge(each.redis, each.keys, "instance-1", sink)
        bridge.start()
        try:
            async with asyncio.timeout(PATIENCE):
                await bridge.subscribe(SESSION)
            await push(each)
            await eventually(lambda: told, within=PATIENCE)  # it may have missed something
            await push(each)
            await eventually(lambda: any(isinstance(m, Heard) for m in told), within=PATIENCE)
        finally:
            await bridge.stop()
        assert bridge.rebuilt == 1


class Stumbling(Bridge):
    """Meets what nobody thought of, once."""

    stumbled = False

    async def _handle(self, message: Any) -> None:
        if message[0] == b"message" and not self.stumbled:
            self.stumbled = True
            raise LookupError("nobody thought of it")
        await super()._handle(message)


async def test_what_nobody_thought_of_is_logged_and_the_connection_made_anew(
    redis_server: RedisServer, prefix: str
) -> None:
    told: list[Message] = []

    async def sink(message: Message) -> None:
        told.append(message)

    async with stores(redis_server.url, prefix) as each:
        bridge = Stumbling(each.redis, each.keys, "instance-1", sink)
        with structlog.testing.capture_logs() as logs:
            bridge.start()
            try:
                await eventually(lambda: bridge.rebuilt, within=PATIENCE)
                async with asyncio.timeout(PATIENCE):
                    await bridge.subscribe(SESSION)
                await push(each)
                await eventually(lambda: any(isinstance(m, Heard) for m in told), within=PATIENCE)
            finally:
                await bridge.stop()
    assert [line["event"] for line in logs].count("bridge.failed") == 1


@pytest.mark.alone
async def test_a_canary_that_may_not_sing_says_why_and_goes_on_trying(prefix: str) -> None:
    with RedisServer("--rename-command", "PUBLISH", "SHOUT") as server:
        async with stores(server.url, prefix) as each, ear_of(each) as ear:
            with structlog.testing.capture_logs() as logs:
                await eventually(lambda: ear.bridge.rebuilt >= 2, within=PATIENCE)
    assert [line["event"] for line in logs].count("bridge.canary_failed") == 1
    assert [line["event"] for line in logs].count("bridge.lost") >= 2
