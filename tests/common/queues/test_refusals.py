"""A Redis that will not have us, or that must not be used, is told from one that is away."""

import ssl

import pytest
from redis import exceptions

from common.domain.errors import RedisUnavailable
from common.queues.keys import Keys
from common.queues.redis import Redis
from common.queues.refusals import refusal, why_refused
from tests.support.redis_server import RedisServer, free_port

KEYS = Keys("p:")


async def refusal_of(url: str) -> str | None:
    redis = Redis(url, socket_timeout=30.0)
    try:
        return await refusal(redis, KEYS)
    finally:
        await redis.close()


async def test_a_redis_that_lets_us_do_everything_is_taken() -> None:
    with RedisServer() as server:
        assert await refusal_of(server.url) is None


async def test_a_redis_that_may_drop_keys_is_refused() -> None:
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        assert "allkeys-lru" in (await refusal_of(server.url) or "")


async def set_user(server: RedisServer, *rules: str) -> None:
    """Changes what the user may do that everybody is who names none."""
    admin = Redis(server.url)
    await admin.call("ACL", "SETUSER", "default", *rules)
    await admin.close()


async def test_a_redis_that_does_not_know_the_question_is_taken() -> None:
    with RedisServer("--rename-command", "INFO", "") as server:
        assert await refusal_of(server.url) is None


async def test_a_redis_that_does_not_let_us_look_is_taken() -> None:
    with RedisServer() as server:
        await set_user(server, "-info")
        assert await refusal_of(server.url) is None


@pytest.mark.parametrize("wrong", ["", ":canary@", "nobody:canary@"])
async def test_a_wrong_password_is_refused_without_repeating_it(wrong: str) -> None:
    with RedisServer() as server:
        await set_user(server, "resetpass", ">the-right-canary")
        said = await refusal_of(server.url.replace("//", f"//{wrong}"))
        assert said
        assert said.startswith("Redis refuses this instance: the user name or password is wrong")
        assert "canary" not in said


@pytest.mark.parametrize(
    "rules",
    [("-get",), ("-script",), ("resetkeys", "~other:*"), ("resetchannels",)],
    ids=["command", "scripts", "keys", "channels"],
)
async def test_a_right_that_is_missing_is_refused(rules: tuple[str, ...]) -> None:
    with RedisServer() as server:
        await set_user(server, *rules)
        said = await refusal_of(server.url)
        assert said
        assert said.startswith("Redis refuses this instance: a right is missing: ")


async def test_a_redis_that_is_away_is_not_a_refusal() -> None:
    with pytest.raises(RedisUnavailable) as raised:
        await refusal_of(f"redis://:canary@127.0.0.1:{free_port()}/0")
    assert why_refused(raised.value) is None
    assert "canary" not in str(raised.value.__cause__)


def not_verified(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "canary")
    error.verify_message = message
    return error


def other_fault(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "canary")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (not_verified("certificate has expired"), "not trusted: certificate has expired"),
        (other_fault("WRONG_VERSION_NUMBER"), "TLS with it fails: WRONG VERSION NUMBER"),
        (ssl.SSLEOFError(8, "EOF occurred"), None),
        (ConnectionResetError(), None),
        (exceptions.ResponseError("ERR ACL failure in script: no get"), "a right is missing"),
        (exceptions.ResponseError("WRONGTYPE"), None),
    ],
    ids=repr,
)
def test_what_will_not_mend_itself_is_told_from_what_will(
    error: Exception, said: str | None
) -> None:
    """However deep it is within what redis-py and we have made of it."""
    outer = RedisUnavailable()
    outer.__cause__ = exceptions.ConnectionError("Error 1 connecting to 127.0.0.1:6379")
    outer.__cause__.__context__ = error
    found = why_refused(outer)
    assert (found is None) == (said is None)
    assert (said or "") in (found or "")
    assert "canary" not in (found or "")
