"""Dead letters by REST: looked at, tried again, thrown away."""

import uuid

from tests.support.client import frames_until, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import running_service


async def test_a_bad_callback_is_shown_and_thrown_away(
    redis_server: RedisServer, prefix: str
) -> None:
    async with (
        running_service(redis_server.url, prefix) as service,
        FakeExecutor(redis_server.url, prefix) as executor,
        service.connect("acme/s") as socket,
    ):
        await next_frame(socket)
        await service.send("acme/s")
        task = await executor.take()
        await executor.report(task, "nonsense", {"a": 1})
        await executor.report(task, "started")
        await frames_until(socket, "task_update")
        (letter,) = (await service.get("/dead-letters/callbacks?limit=5")).json["items"]
        assert letter.keys() == {"id", "reason", "fields"}
        assert letter["reason"] == "unknown_type"
        assert letter["fields"]["type"] == "nonsense"
        address = f"/dead-letters/callbacks/{letter['id']}"
        assert (await service.post(f"{address}/requeue", b"")).status == 202
        assert (await service.request("DELETE", address)).status == 404  # gone, as it was requeued


async def test_what_is_not_there_is_not_found(redis_server: RedisServer, prefix: str) -> None:
    async with running_service(redis_server.url, prefix) as service:
        assert (await service.get("/dead-letters/execute")).json == {"items": []}
        for path in ("/dead-letters/other", "/dead-letters/other/1-0"):
            method = "GET" if path.endswith("other") else "DELETE"
            assert (await service.request(method, path)).status == 404
        for id_ in ("1-0", "x", str(uuid.uuid4()), f"{2**64}-0", f"0-{2**64}", "%D9%A1-0"):
            path = f"/dead-letters/execute/{id_}"
            assert (await service.request("DELETE", path)).status == 404
            assert (await service.post(f"{path}/requeue", b"")).status == 404
        assert (await service.get("/dead-letters/execute?limit=0")).status == 422
