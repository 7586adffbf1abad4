"""When Redis is there and will not have us, or must not be used: told at the start, in one line.

A wrong password, a right that is missing and a certificate that is not trusted do not mend
themselves; a Redis that is away does, and is waited for. No line holds a secret: they are words of
Redis and of OpenSSL, who do not repeat what they were given.
"""

import ssl
from collections.abc import Iterator, Sequence

from redis import exceptions

from common.domain.errors import RedisUnavailable
from common.queues.keys import Keys
from common.queues.redis import Redis, lacks_right
from common.queues.scripts import ALL, Command

# The connection ended in the midst of it, as it does with a Redis that is just going down.
CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


async def refusal(redis: Redis, keys: Keys) -> str | None:
    """Why an orchestrator cannot work with this Redis; None if it can.

    Raises:
        RedisUnavailable: it is away; the cause says how.
    """
    attempts: list[Command] = [("SCRIPT", "LOAD", script.body) for script in ALL]
    attempts += [("GET", f"{keys.prefix}rights"), ("PUBLISH", keys.canary("rights"), "")]
    try:
        await attempt(redis, attempts)
    except RedisUnavailable as error:
        if why := why_refused(error):
            return f"Redis refuses this instance: {why}"
        raise
    return await _may_drop_keys(redis)


async def attempt(redis: Redis, commands: Sequence[Command]) -> None:
    """Sends what does nothing but show whether it is permitted. Raises RedisUnavailable."""
    await redis.call_all(commands)


def why_refused(error: BaseException) -> str | None:
    """Why Redis refuses us, or we it; None if it only is away."""
    for each in _causes(error):
        match each:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted: {each.verify_message}"
            case ssl.SSLError() if not isinstance(each, CUT_OFF):
                return f"TLS with it fails: {(each.reason or 'no reason given').replace('_', ' ')}"
            case exceptions.AuthenticationError():
                return f"the user name or password is wrong: {each}"
            case exceptions.ResponseError() if lacks_right(each):
                return f"a right is missing: {each}"
    return None


async def _may_drop_keys(redis: Redis) -> str | None:
    """A Redis that may evict keys loses tasks."""
    try:
        memory: bytes = await redis.call("INFO", "memory")
    except (exceptions.ResponseError, RedisUnavailable) as error:
        if isinstance(error, RedisUnavailable) and not why_refused(error):
            raise
        return None  # not permitted to look; the documentation says what to set
    facts = dict(line.partition(":")[::2] for line in memory.decode().splitlines())
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return None
    return f"Redis may drop keys (maxmemory-policy {policy}): set it to noeviction."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
