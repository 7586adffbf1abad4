"""Scripts are what their files say, and Redis knows them by it."""

import hashlib

import pytest

from common.queues import scripts
from common.queues.redis import Redis
from common.queues.scripts import ALL, FOLDER, Script, script, scripts_by_sha
from tests.support.redis_server import RedisServer


def test_a_script_is_put_together_from_what_it_builds_on() -> None:
    body = script("cancel_task", "_session", "_task").body
    parts = [(FOLDER / f"{name}.lua").read_bytes() for name in ("_session", "_task", "cancel_task")]
    assert body == b"\n".join(parts)


def test_a_command_names_the_script_its_keys_and_its_arguments() -> None:
    assert Script(b"", "abc").call(["k1", "k2"], 1, b"x") == (
        "EVALSHA",
        "abc",
        2,
        "k1",
        "k2",
        1,
        b"x",
    )


def test_every_script_can_be_loaded_anew_by_its_name_in_redis() -> None:
    assert {each.sha for each in ALL} == set(scripts_by_sha())
    assert len(ALL) == len(scripts_by_sha()) > 10
    for sha, each in scripts_by_sha().items():
        assert sha == hashlib.sha1(each.body, usedforsecurity=False).hexdigest()


def test_every_file_is_used() -> None:
    used = b"\n".join(each.body for each in ALL)
    for file in FOLDER.glob("*.lua"):
        assert file.name.startswith("work_") or file.read_bytes() in used, file.name


@pytest.mark.parametrize(
    "each",
    ALL,
    ids=lambda each: next(name for name, value in vars(scripts).items() if value is each).lower(),
)
async def test_redis_compiles_it(redis_server: RedisServer, each: Script) -> None:
    redis = Redis(redis_server.url)
    try:
        assert await redis.call("SCRIPT", "LOAD", each.body) == each.sha.encode()
    finally:
        await redis.close()


def test_every_script_opens_with_what_it_does_and_what_it_takes() -> None:
    for file in FOLDER.glob("*.lua"):
        text = file.read_text()
        assert text.startswith("--[["), file.name
        assert "KEYS[" in text or "nothing more" in text, file.name
