"""What Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import next_frame
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def test_metrics_count_what_has_happened(redis_server: RedisServer, prefix: str) -> None:
    async with running_service(redis_server.url, prefix) as service:
        async with service.connect("acme/s") as socket:
            await next_frame(socket)
            await socket.send("bad")
            await next_frame(socket)
            await service.send("acme/s", key="k")
            await service.send("acme/s", key="k")
            answer = await service.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }
        assert (
            samples.items()
            >= {
                "orchestrator_connections": 1,
                "orchestrator_ready": 1,
                "orchestrator_bad_frames_total": 1,
                "orchestrator_messages_accepted_total": 1,
                "orchestrator_messages_replayed_total": 1,
            }.items()
        )
        assert all(name.startswith("orchestrator_") for name in samples)
