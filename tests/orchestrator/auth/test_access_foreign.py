"""What is another tenant's looks like what does not exist, also to operators (S9)."""

from typing import Any

from tests.orchestrator.auth.access import CALLERS, PREFIX, SESSION, World
from tests.support.callers import bearer, token
from tests.support.client import Answer, next_frame
from tests.support.fake_executor import FakeExecutor
from tests.support.redis_server import RedisServer
from tests.support.service import RunningProcess


async def test_what_is_foreign_looks_like_what_does_not_exist(
    guarded: RunningProcess, redis_server: RedisServer
) -> None:
    async with FakeExecutor(redis_server.url, PREFIX) as executor:
        for caller in ("stranger", "bound_elsewhere", "foreign_admin", "bound_admin"):
            world = World(guarded, executor, CALLERS[caller]())
            for path in ("/api/chat/status", "/api/chat/cancel"):
                there = {"tenant_id": "acme", "task_id": await world.task()}
                nowhere = {"tenant_id": "acme", "task_id": "no-such-task"}
                answers = [await world.ask("POST", path, body) for body in (there, nowhere)]
                if not caller.startswith("bound"):  # nor does asking as one's own help
                    own = {**there, "tenant_id": "globex"}
                    answers.append(await world.ask("POST", path, own))
                assert len({told(answer) for answer in answers}) == 1, answers
                assert answers[0].code == "task_not_found"
        for caller in ("foreign_admin", "bound_admin"):
            world = World(guarded, executor, CALLERS[caller]())
            for queue in ("execute", "callbacks"):
                letter = await world.letter(queue)
                for method, rest in (("DELETE", ""), ("POST", "/requeue")):
                    address = f"/dead-letters/{queue}"
                    foreign = await world.ask(method, f"{address}/{letter}{rest}")
                    missing = await world.ask(method, f"{address}/1-1{rest}")
                    assert told(foreign) == told(missing)
                    assert foreign.status == 404


def told(answer: Answer) -> tuple[Any, ...]:
    """All of an answer but the time of day."""
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "Date")
    return answer.status, tuple(headers), answer.body


async def test_an_operator_of_a_tenant_sees_its_letters_and_connections_only(
    guarded: RunningProcess, redis_server: RedisServer
) -> None:
    async with (
        FakeExecutor(redis_server.url, PREFIX) as executor,
        guarded.connect("acme/s-1", {"additional_headers": bearer(token())}) as here,
        guarded.connect("globex/s-1", {"additional_headers": bearer(token("globex"))}) as there,
    ):
        for socket in (here, there):
            assert (await next_frame(socket))["type"] == "connection_ack"
        letter = await World(guarded, executor).letter("callbacks")
        key = f"{PREFIX}dead:callbacks"
        unsure = {
            "reason": "mismatch", "stream": "x", "entry_id": "1-0", **SESSION, "task_id": "t",
        }  # fmt: skip
        nobodys = await executor.redis.xadd(key, unsure)
        for number in range(250):  # so many of others that one page of reading is not enough
            about = {"reason": "unreadable", "stream": "x", "entry_id": f"{number}-0"}
            await executor.redis.xadd(key, {**about, "tenant_id": "globex", "session_id": "s"})
        for caller, sees, connections in (
            ("admin", {letter}, {"acme"}),
            ("bound_admin", set(), set()),
            ("foreign_admin", set(), {"globex"}),
            ("operator", {letter, nobodys.decode()}, {"acme", "globex"}),
        ):
            world = World(guarded, executor, CALLERS[caller]())
            items = (await world.ask("GET", "/dead-letters/callbacks?limit=1000")).json["items"]
            assert {letter, nobodys.decode()} & {item["id"] for item in items} == sees
            stats = (await world.ask("GET", "/ws/stats")).json["instance"]["by_tenant"]
            assert stats.keys() == connections
        world = World(guarded, executor, CALLERS["admin"]())
        items = (await world.ask("GET", "/dead-letters/callbacks?limit=1")).json["items"]
        assert [item["id"] for item in items] == [letter]
