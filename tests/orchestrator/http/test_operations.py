"""What operators ask: is it well, what does it do, who lives."""

import asyncio

import pytest

from tests.support.client import WITHIN, Address, next_frame
from tests.support.follower import eventually
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def test_health_is_one_word_while_the_process_lives(instance: Address) -> None:
    answer = await instance.get("/health")
    assert answer.status == 200
    assert answer.json.keys() == {"status", "service", "version"}
    assert (answer.json["status"], answer.json["service"]) == ("healthy", "agent-orchestrator")
    await instance.ready()  # but for a while after it stood still for want of a processor


async def test_detailed_health_names_every_part(instance: Address) -> None:
    answer = await instance.get("/health/detailed")
    assert answer.status == 200
    report = answer.json
    assert report.keys() == {"status", "version", "instance_id", "uptime_seconds", "components"}
    parts = report["components"]
    assert parts["redis"].keys() == {"status", "latency_ms"}
    assert parts["actors"].keys() == {"status", "alive", "restarts"}
    assert parts["callback_worker"].keys() == {"status", "pending", "lag"}
    assert parts["execution_queue"].keys() == {"status", "depth", "consumers"}
    assert parts["execution_queue"]["depth"].keys() == {"high", "normal", "low"}
    assert parts["websocket"].keys() == {"status", "connections", "limit"}


@pytest.mark.alone
async def test_without_redis_it_is_unhealthy_and_alive(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Proxy(redis_server.port) as proxy, running_service(proxy.url, prefix) as service:
        await proxy.refuse()
        answer = await service.get("/health/detailed")
        assert (answer.status, answer.json["status"]) == (503, "unhealthy")
        await eventually(lambda: is_refused_for_redis(service))
        assert (await service.get("/health")).status == 200
        await proxy.heal()
        async with asyncio.timeout(5):
            while (await service.get("/health/ready")).status != 200:
                await asyncio.sleep(0.05)


async def is_refused_for_redis(service: Address) -> bool:
    """Whether that is why it is not ready; who stood still says that first, for a while."""
    ready = await service.get("/health/ready")
    assert ready.status == 503
    return ready.code == "redis_unavailable"


async def test_messages_that_nobody_works_on_are_a_degraded_state(
    redis_server: RedisServer, prefix: str
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        await service.send()
        async with asyncio.timeout(WITHIN):
            while (report := (await service.get("/health/detailed")).json)["status"] != "degraded":
                await asyncio.sleep(0.02)
        assert report["components"]["execution_queue"]["depth"]["normal"] == 1
        assert report["components"]["execution_queue"]["consumers"] == 0


async def test_stats_count_connections_here_and_in_the_cluster(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as one,
        running_service(redis_server.url, prefix) as other,
        one.connect("acme/a") as a,
        one.connect("acme/a") as b,
        other.connect("rival/c") as c,
    ):
        for socket in (a, b, c):
            await next_frame(socket)
        stats = (await one.get("/ws/stats")).json
        assert (
            stats["instance"].items()
            >= {
                "connections": 2,
                "sessions": 1,
                "peak_connections": 2,
                "total_connections": 2,
                "slow_consumers_closed": 0,
                "by_tenant": {"acme": 2},
                "messages_sent": 2,
            }.items()
        )
        assert stats["instance"].keys() == {
            *("instance_id", "connections", "sessions", "peak_connections", "total_connections"),
            *("messages_sent", "messages_received", "bytes_sent", "slow_consumers_closed"),
            "by_tenant",
        }
        wanted = {"instances": 2, "connections": 3, "sessions": 2}
        async with asyncio.timeout(WITHIN):
            while (await one.get("/ws/stats")).json["cluster"] != wanted:
                await asyncio.sleep(0.1)


async def test_the_tree_shows_every_actor(instance: Address) -> None:
    tree = (await instance.get("/actors")).json
    assert tree.keys() == {"name", "class", "state", "restarts", "mailbox", "children"}
    assert {child["class"] for child in tree["children"]} >= {
        *("ChatRouterActor", "ConnectionManagerActor", "CallbackWorkerActor", "PushWorkerActor")
    }


@pytest.mark.parametrize(
    ("limit", "status"), [("0", 422), ("1", 200), ("1000", 200), ("1001", 422)]
)
async def test_supervision_events_are_the_newest(
    instance: Address, limit: str, status: int
) -> None:
    answer = await instance.get(f"/actors/supervision?limit={limit}")
    assert answer.status == status
    if status == 200:
        assert 0 < len(answer.json["events"]) <= int(limit)
