"""`python -m execution` as a process, started and killed for real."""

import signal
import time
from pathlib import Path

import pytest

from common.domain.ids import TaskId
from common.queues.keys import GIVEN_BACK
from tests.execution.support import Orchestrator, Process, text
from tests.support.redis_server import RedisServer

WORDS = "one two three four five six seven eight nine ten"


async def test_it_serves_the_demo_agents_and_stops_when_told(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        process = await Process.for_orchestrator(orchestrator, "--name", "w1")
        try:
            told = await orchestrator.callbacks(await orchestrator.submit("echo", "Hello,  world!"))
            assert text(told) == "Hello,  world!"
            assert any(name.startswith("w1-") for name in await orchestrator.consumers())
            process.send(signal.SIGTERM)
            status, out, err = await process.ended()
        finally:
            await process.kill()
        assert (status, out) == (0, "")
        lines = err.splitlines()
        assert '"worker.started"' in lines[0]
        assert '"agents":["echo","faulty","storyteller"]' in lines[0]
        assert '"worker.stopped"' in lines[-1]
        assert await orchestrator.consumers() == set()


async def test_a_worker_killed_in_the_middle_is_followed_by_another_as_attempt_two(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        first = await Process.for_orchestrator(orchestrator)
        second = None
        try:
            task_id = await orchestrator.submit(
                *("echo", WORDS), visibility_timeout_ms=700, context={"delay_ms": 250}
            )
            told = await orchestrator.callbacks(task_id, until="three")
            first.send(signal.SIGKILL)
            await first.ended()
            second = await Process.for_orchestrator(orchestrator)
            told += await orchestrator.callbacks(task_id)
            await orchestrator.emptied()
        finally:
            await first.kill()
            if second:
                await second.kill()
    newest = [each for each in told if each.attempt == 2]
    assert [each.seq for each in newest] == list(range(1, 13))
    assert (text(newest), newest[-1].type) == (WORDS, "completed")
    assert all(each.type != "completed" for each in told if each.attempt == 1)


async def test_a_worker_that_slept_past_its_lease_says_nothing_more(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        sleeper = await Process.for_orchestrator(orchestrator)
        other = None
        try:
            task_id = await orchestrator.submit(
                *("echo", WORDS), visibility_timeout_ms=3000, context={"delay_ms": 300}
            )
            await orchestrator.callbacks(task_id, until="two")
            sleeper.send(signal.SIGSTOP)
            other = await Process.for_orchestrator(orchestrator)
            await orchestrator.callbacks(task_id, until="one")
            sleeper.send(signal.SIGCONT)
            told = await orchestrator.callbacks(task_id)
            assert (told[-1].type, told[-1].attempt) == ("completed", 2)
            await orchestrator.emptied()
            assert await orchestrator.redis.get(orchestrator.keys.attempt(TaskId(task_id))) == b"2"
        finally:
            sleeper.send(signal.SIGCONT)
            await sleeper.kill()
            if other:
                await other.kill()


async def test_a_first_signal_drains_and_a_second_gives_back_at_once(
    redis_server: RedisServer, prefix: str
) -> None:
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        process = await Process.for_orchestrator(orchestrator)
        try:
            task_id = await orchestrator.submit("faulty", "hang")
            await orchestrator.callbacks(task_id, until="Hanging.")
            process.send(signal.SIGINT)
            await process.said("worker.draining")  # two signals at once would be one
            begun = time.monotonic()
            process.send(signal.SIGINT)
            status, _, err = await process.ended()
            assert time.monotonic() - begun < 10  # it would drain for 20
        finally:
            await process.kill()
        assert (status, "given_back" in err) == (0, True)
        assert await orchestrator.consumers() == {GIVEN_BACK}


@pytest.mark.alone
async def test_it_stops_within_seconds_while_redis_is_away() -> None:
    with RedisServer() as server:
        async with Orchestrator(server.url, "p:") as orchestrator:
            process = await Process.for_orchestrator(orchestrator, "--drain-seconds", "0.5")
            try:
                task_id = await orchestrator.submit("faulty", "hang")
                await orchestrator.callbacks(task_id, until="Hanging.")
                server.kill()
                begun = time.monotonic()
                process.send(signal.SIGTERM)
                status, _, _ = await process.ended()
                assert time.monotonic() - begun < 6
                assert status == 0
            finally:
                await process.kill()


AGENT = """
from execution import Worker

mine = Worker()
none = Worker()
other = object()

@mine.agent("shout")
async def shout(task):
    yield task.message.upper()
"""


async def test_agents_of_any_module_are_run_beside_others(
    redis_server: RedisServer, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "my_agents.py").write_text(AGENT)
    async with Orchestrator(redis_server.url, prefix) as orchestrator:
        process = await Process.start(
            *("--agents", "my_agents:mine", "--agents", "execution.agents.demo"),
            cwd=tmp_path,
            environ={"EXECUTION_REDIS_URL": redis_server.url, "EXECUTION_KEY_PREFIX": prefix},
        )
        try:
            for agent, response in (("shout", "HI"), ("echo", "hi")):
                told = await orchestrator.callbacks(await orchestrator.submit(agent, "hi"))
                assert text(told) == response
        finally:
            await process.kill()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--agents", "no.such.module"), "cannot import no.such.module"),
        (("--agents", "my_agents"), "no Worker named worker"),
        (("--agents", "my_agents:other"), "no Worker named other"),
        (("--agents", "my_agents:none"), "has no agents"),
        (("--agents", "my_agents:mine", "--agents", "my_agents:mine"), "two agents named 'shout'"),
        (("--agents", "execution.agents.openai"), "OPENAI_API_KEY"),
        (("--agents", "broken"), "broken"),
        (("--concurrency", "0"), "concurrency must be at least 1"),
        (("--concurrency", "many"), "concurrency must be a number, not 'many'"),
        (("--drain-seconds", "-1"), "drain-seconds"),
        (("--redis-url", "http://x"), "redis"),
        (("--orchestrator-url", "localhost"), "orchestrator-url"),
        (("--log-format", "xml"), "log-format"),
        (("--log-level", "loud"), "log-level"),
        (("--what",), "--what"),
    ],
)
async def test_a_wrong_start_is_one_clear_line_and_status_two(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "my_agents.py").write_text(AGENT)
    (tmp_path / "broken.py").write_text("1 / 0")
    process = await Process.start(*arguments, cwd=tmp_path)
    status, _, err = await process.ended()
    assert status == 2, err
    assert complaint.lower() in err.lower()
    assert "Traceback" not in err


async def test_a_wrong_password_is_one_clear_line_and_status_one() -> None:
    with RedisServer() as server:
        async with Orchestrator(server.url, "p:") as orchestrator:
            await orchestrator.redis.config_set("requirepass", "secret")
            url = server.url.replace("//", "//:wrong-one@")
            process = await Process.start("--redis-url", url)
            status, _, err = await process.ended()
    assert status == 1
    assert "Redis refuses this worker" in err
    assert "wrong-one" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "shown"), [("--help", "EXECUTION_REDIS_URL"), ("--version", ".")]
)
async def test_it_tells_its_options_and_its_version(option: str, shown: str) -> None:
    status, out, _ = await (await Process.start(option)).ended()
    assert (status, shown in out) == (0, True)
