"""What verifies tokens in tests, with each kind of key, and why one is refused."""

from typing import Any

import pytest

from common.domain.errors import Unauthorized
from config.auth_sections import JwtSettings
from orchestrator.auth.credentials import BadCredentials
from orchestrator.auth.key_sets import read_key_set
from orchestrator.auth.keys import VerifyingKey, static_key
from orchestrator.auth.tokens import StaticKey, TokenVerifier
from tests.support.issuer import RSA, Clock, hmac_settings, key_set, public_pem

HS256 = {"alg": "HS256", "typ": "JWT"}
LEEWAY = 30


class SetOfKeys:
    """A key set that is there already."""

    def __init__(self, *entries: dict[str, Any], algorithms: tuple[str, ...]) -> None:
        self._keys = read_key_set(key_set(*entries), algorithms)

    async def find(self, kid: str | None) -> VerifyingKey | None:
        return self._keys.find(kid)

    async def close(self) -> None:
        """Nothing runs."""


def verifier(**changes: Any) -> TokenVerifier:
    settings = hmac_settings(**changes)
    return TokenVerifier(settings, StaticKey(static_key(settings)), Clock())


def rsa_verifier() -> TokenVerifier:
    return verifier(algorithms=("RS256",), key=public_pem(RSA).decode())


def set_verifier(*entries: dict[str, Any], algorithms: tuple[str, ...]) -> TokenVerifier:
    keys = SetOfKeys(*entries, algorithms=algorithms)
    return TokenVerifier(JwtSettings(algorithms=algorithms), keys, Clock())


async def refused(tokens: TokenVerifier, given: str) -> str:
    """Why it is: the word for our log. What callers are told helps nobody to guess."""
    with pytest.raises(BadCredentials) as caught:
        await tokens.caller(given)
    assert isinstance(caught.value, Unauthorized)
    assert (caught.value.code, caught.value.http_status) == ("unauthorized", 401)
    assert caught.value.detail in (
        "A valid token or key is needed.",
        "The token has expired.",
        "The token is not valid yet.",
    )
    return caught.value.reason
