"""Keys of a set that a test serves or has in a file, and the clock that they are kept by."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from config.auth_sections import JwtSettings
from orchestrator.auth.jwks import KeySetKeys, key_set_keys
from tests.support.issuer import OTHER_RSA, RSA, Clock, jwk, key_set
from tests.support.key_server import KeyServer, key_server

MAX_AGE = 300.0
COOLDOWN = 10.0
WITHIN = 10.0

ONE = key_set(jwk(RSA, kid="one"))
TWO = key_set(jwk(OTHER_RSA, kid="two"))
BOTH = key_set(jwk(RSA, kid="one"), jwk(OTHER_RSA, kid="two"))


def settings(**where: Any) -> JwtSettings:
    return JwtSettings(
        **{
            "algorithms": ("RS256", "ES256"),
            "jwks_max_age": MAX_AGE,
            "jwks_cooldown": COOLDOWN,
            **where,
        }
    )


@contextlib.asynccontextmanager
async def keys_at(clock: Clock, **where: Any) -> AsyncIterator[KeySetKeys]:
    keys = key_set_keys(settings(**where), clock)
    try:
        yield keys
    finally:
        await keys.close()


@contextlib.asynccontextmanager
async def served(
    body: bytes = ONE,
) -> AsyncIterator[tuple[KeyServer, KeySetKeys, Clock]]:
    """A server, the keys that are fetched from it, and the clock that they are fetched by."""
    clock = Clock()
    async with key_server(body) as server, keys_at(clock, jwks_url=server.url) as keys:
        yield server, keys, clock


async def has(keys: KeySetKeys, kid: str | None) -> bool:
    async with asyncio.timeout(WITHIN):
        return await keys.find(kid) is not None


async def silence(_: asyncio.StreamWriter) -> None:
    """An answer that does not come."""
    await asyncio.Event().wait()
