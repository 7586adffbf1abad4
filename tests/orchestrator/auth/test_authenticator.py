"""Credentials to callers, in each mode."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.domain.errors import Unauthorized
from config.auth_sections import ApiKeySettings, AuthSettings, JwtSettings
from config.settings import ConfigurationError
from orchestrator.auth.authenticator import Authenticator, check_keys
from orchestrator.auth.credentials import Credentials
from tests.support.canary import CANARY
from tests.support.issuer import (
    NOW,
    OTHER_RSA,
    RSA,
    Clock,
    claims,
    hmac_settings,
    in_file,
    jwk,
    key_set,
    public_pem,
    token,
)
from tests.support.key_server import key_server
from tests.support.redis_server import RedisServer
from tests.support.service import running_service

API_KEY = f"{CANARY}-of-a-backend-with-enough-of-it"
DOTTED = "a.key.with-two-dots-and-enough-of-it"
NOTHING = Credentials()
TOKEN = Credentials(bearer=token(claims()))
KEY = Credentials(api_key=API_KEY)
KEY_OF_NOBODY = Credentials(api_key="canary")
KEY_AS_BEARER = Credentials(bearer=API_KEY)


def auth(*mode: str, jwt: JwtSettings | None = None) -> AuthSettings:
    keys = tuple(
        ApiKeySettings(
            name=name,
            sha256=hashlib.sha256(key.encode()).hexdigest(),
            tenant_id="acme",
            scopes=("push",),
        )
        for name, key in (("backend", API_KEY), ("dotted", DOTTED))
    )
    return AuthSettings(
        mode=mode,
        jwt=(jwt or hmac_settings()) if "jwt" in mode else JwtSettings(),
        api_keys=keys if "api_key" in mode else (),
    )


def authenticator(*mode: str, clock: Clock | None = None, **of_jwt: Any) -> Authenticator:
    settings = auth(*mode, **of_jwt)
    return Authenticator(settings, now=Clock(), clock=clock or Clock(0))


async def refused(asked: Authenticator, credentials: Credentials) -> str:
    """Why, as the log has it."""
    with capture_logs() as logs, pytest.raises(Unauthorized):
        await asked.authenticate(credentials)
    (line,) = logs
    reason: str = line["reason"]
    return reason


async def test_only_in_mode_none_nobody_needs_to_be_asked() -> None:
    assert authenticator("none").is_open
    for modes in (("jwt",), ("api_key",), ("jwt", "api_key")):
        assert not authenticator(*modes).is_open
    for credentials in (NOTHING, TOKEN, KEY):  # whoever asks all the same learns nothing
        await refused(authenticator("none"), credentials)


@pytest.mark.parametrize(
    "shown",
    [{}, {"Authorization": "Bearer expired or worse"}, {"X_API_Key": "a key"}],
)
async def test_in_mode_none_everybody_is_anyone_whatever_they_show(
    redis_server: RedisServer, prefix: str, shown: dict[str, str]
) -> None:
    async with running_service(redis_server.url, prefix) as service:
        assert (await service.get("/actors", **shown)).status == 200


async def test_in_mode_jwt_tokens_are_taken_and_nothing_else() -> None:
    tokens = authenticator("jwt")
    assert (await tokens.authenticate(TOKEN)).name == "alice"
    assert await refused(tokens, NOTHING) == "missing"
    assert await refused(authenticator("jwt"), KEY) == "unknown_key"
    assert await refused(authenticator("jwt"), KEY_AS_BEARER) == "malformed"


async def test_in_mode_api_key_keys_are_taken_in_both_headers_and_nothing_else() -> None:
    keys = authenticator("api_key")
    for credentials in (KEY, KEY_AS_BEARER, Credentials(bearer=DOTTED)):
        assert (await keys.authenticate(credentials)).name in ("backend", "dotted")
    assert await refused(keys, NOTHING) == "missing"
    assert await refused(authenticator("api_key"), TOKEN) == "unknown_key"


async def test_with_both_a_bearer_is_told_by_its_looks() -> None:
    both = authenticator("jwt", "api_key")
    assert (await both.authenticate(TOKEN)).name == "alice"
    assert (await both.authenticate(KEY)).name == "backend"
    assert (await both.authenticate(KEY_AS_BEARER)).name == "backend"
    assert (await both.authenticate(Credentials(api_key=DOTTED))).name == "dotted"
    assert await refused(both, Credentials(bearer=DOTTED)) == "malformed"  # it looks like a token


async def test_a_bearer_counts_before_a_key_and_is_not_made_up_for_by_it() -> None:
    both = Credentials(bearer=token(claims()), api_key=API_KEY)
    assert (await authenticator("jwt", "api_key").authenticate(both)).name == "alice"
    for bearer in (token(claims(exp=1)), "nobody's"):
        spoiled = Credentials(bearer=bearer, api_key=API_KEY)
        await refused(authenticator("jwt", "api_key"), spoiled)


async def test_an_expired_token_is_told_so_and_others_are_told_nothing() -> None:
    tokens = authenticator("jwt")
    with pytest.raises(Unauthorized, match=r"The token has expired\."):
        await tokens.authenticate(Credentials(bearer=token(claims(exp=NOW - 31))))
    with pytest.raises(Unauthorized, match=r"A valid token or key is needed\."):
        await tokens.authenticate(Credentials(bearer=token(claims(tenant_id=None))))


async def test_callers_say_when_their_token_ends_with_the_leeway() -> None:
    jwt = hmac_settings(leeway=7)
    caller = await authenticator("jwt", jwt=jwt).authenticate(TOKEN)
    assert caller.expires_at == NOW + 67
    assert (await authenticator("api_key").authenticate(KEY)).expires_at is None


async def test_refusals_are_told_with_their_reason_and_without_secrets() -> None:
    both = authenticator("jwt", "api_key")
    expired = Credentials(bearer=token(claims(sub="canary", exp=1)))
    with capture_logs() as logs:
        for credentials in (Credentials(bearer="canary.canary.canary"), KEY_OF_NOBODY, expired):
            with pytest.raises(Unauthorized):
                await both.authenticate(credentials)
    assert logs == [
        {"event": "credentials.refused", "log_level": "info", "reason": reason}
        for reason in ("malformed", "unknown_key", "expired")
    ]


async def test_keys_of_tokens_may_come_from_a_set(tmp_path: Path) -> None:
    content = key_set(jwk(RSA))
    good = Credentials(bearer=token(claims(), RSA, "RS256", {"kid": "one"}))
    foreign = Credentials(bearer=token(claims(), OTHER_RSA, "RS256", {"kid": "one"}))
    async with key_server(content) as server:
        for jwt in (
            JwtSettings(algorithms=("RS256",), jwks_url=server.url),
            JwtSettings(algorithms=("RS256",), jwks_file=in_file(tmp_path, content)),
        ):
            tokens = authenticator("jwt", jwt=jwt)
            assert (await tokens.authenticate(good)).name == "alice"
            assert await refused(tokens, foreign) == "signature"
            await tokens.close()
        assert server.fetches == 1


# --- Keys are looked at when the service starts ----------------------------------------------


def test_keys_of_this_machine_are_looked_at_before_anything_starts(tmp_path: Path) -> None:
    rsa = public_pem(RSA)
    for jwt in (
        JwtSettings(algorithms=("RS256",), key_file=in_file(tmp_path, rsa)),
        JwtSettings(algorithms=("RS256",), key=rsa.decode()),
        JwtSettings(algorithms=("RS256",), jwks_url="https://id.example/is-not-asked"),
        hmac_settings(),
    ):
        check_keys(auth("jwt", jwt=jwt))
    check_keys(auth("none"))
    check_keys(auth("api_key"))
    file = tmp_path / "set"
    file.write_bytes(key_set(jwk(RSA)))
    check_keys(auth("jwt", jwt=JwtSettings(algorithms=("RS256",), jwks_file=str(file))))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"canary", "auth.jwt.jwks_file: not JSON"),
        (key_set(jwk(RSA, use="enc")), "auth.jwt.jwks_file: no key that fits the algorithms"),
        (None, "auth.jwt.jwks_file: cannot be read: No such file or directory"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = str(tmp_path / "none") if content is None else in_file(tmp_path, content)
    settings = auth("jwt", jwt=JwtSettings(algorithms=("RS256",), jwks_file=path))
    with pytest.raises(ConfigurationError) as caught:
        check_keys(settings)
    assert caught.value.mistakes == [complaint]


def test_a_static_key_that_cannot_be_used_stops_the_service_itself(tmp_path: Path) -> None:
    settings = JwtSettings(algorithms=("RS256",), key_file=str(tmp_path / "none"))
    for look in (check_keys, Authenticator):
        with pytest.raises(ConfigurationError, match=r"auth\.jwt\.key_file: cannot be read"):
            look(auth("jwt", jwt=settings))
