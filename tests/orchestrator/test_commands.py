"""The commands beside serving: what they print is what the service takes."""

import argparse
import hashlib
import io
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.domain.ids import SessionId
from config.auth_sections import AuthSettings, JwtSettings
from config.settings import ConfigurationError
from orchestrator import commands
from orchestrator.auth.authenticator import Authenticator
from orchestrator.auth.caller import Caller, Scope
from orchestrator.auth.credentials import Credentials
from tests.support.configuration import settings_of
from tests.support.issuer import (
    PRIVATE_KEYS,
    RSA,
    hmac_settings,
    in_file,
    private_pem,
    public_pem,
)

JWT = AuthSettings(mode=("jwt",), jwt=hmac_settings())


def options_of(add: Any, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args(arguments)


def token(auth: AuthSettings, *arguments: str) -> str:
    return commands.token(auth, options_of(commands.add_token, *arguments))


def hash_key(*arguments: str) -> str:
    return commands.hash_key(options_of(commands.add_hash_key, *arguments))


async def caller(auth: AuthSettings, credentials: Credentials) -> Caller:
    return await Authenticator(auth).authenticate(credentials)


async def test_a_token_is_for_whom_and_what_the_options_say() -> None:
    printed = token(
        JWT,
        *("--tenant", "acme", "--user", "alice", "--scope", "push", "--scope", "chat"),
        *("--session", "s-1", "--session", "s-2", "--expires-in", "60"),
    )
    found = await caller(JWT, Credentials(bearer=printed))
    assert (found.tenant_id, found.user_id) == ("acme", "alice")
    assert found.sessions == frozenset({SessionId("s-1"), SessionId("s-2")})
    assert found.scopes == {Scope.PUSH, Scope.CHAT}
    assert found.expires_at is not None
    assert 85 <= found.expires_at - time.time() <= 90  # with the leeway


async def test_a_token_is_for_chat_in_all_sessions_for_an_hour_where_nothing_is_said() -> None:
    found = await caller(JWT, Credentials(bearer=token(JWT, "--tenant", "acme")))
    assert found.scopes == {Scope.CHAT}
    assert found.sessions is None
    assert found.expires_at is not None
    assert 3620 <= found.expires_at - time.time() <= 3630


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_private_key_signs_and_issuer_and_audience_are_those_of_the_settings(
    tmp_path: Path, algorithm: str
) -> None:
    file = in_file(tmp_path, private_pem(PRIVATE_KEYS[algorithm]))
    auth = AuthSettings(
        mode=("jwt", "api_key"),
        jwt=JwtSettings(
            algorithms=(algorithm,), key_file=file, audience="us", issuer="https://id.example"
        ),
    )
    found = await caller(auth, Credentials(bearer=token(auth, "--tenant", "acme")))
    assert found.tenant_id == "acme"


@pytest.mark.parametrize("mode", [("none",), ("api_key",)])
def test_where_no_token_is_taken_it_is_said_what_to_do(mode: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        token(AuthSettings(mode=mode), "--tenant", "acme")
    (line,) = caught.value.mistakes
    assert line.startswith(f"auth.mode: is {mode[0]}, so no token is taken; make it jwt, and give")


def test_where_only_public_keys_are_known_it_is_said_what_to_do(tmp_path: Path) -> None:
    file = in_file(tmp_path, public_pem(RSA))
    for where in ("key_file", "jwks_file", "jwks_url"):
        jwt = settings_of(
            f"auth: {{mode: jwt, jwt: {{algorithms: RS256, {where}: "
            f"{'https://id.example/keys' if where == 'jwks_url' else file}}}}}"
        ).auth
        with pytest.raises(ConfigurationError) as caught:
            token(jwt, "--tenant", "acme")
        (line,) = caught.value.mistakes
        assert line.startswith("auth.jwt: has public keys only, which sign nothing; instead, give")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--tenant", "a:b"),
        ("--tenant", "*"),
        ("--tenant", "acme", "--user", "a b"),
        ("--tenant", "acme", "--session", ""),
        ("--tenant", "acme", "--scope", "root"),
        ("--tenant", "acme", "--expires-in", "0"),
        ("--tenant", "acme", "--expires-in", "-5"),
        ("--tenant", "acme", "--expires-in", "1e9"),
        ("--tenant", "acme", "--expires-in", "9999999999"),
    ],
)
def test_a_token_that_could_not_be_used_is_not_made(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        token(JWT, *arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


async def test_a_key_is_shown_once_with_an_entry_that_can_be_pasted() -> None:
    printed = hash_key("--name", "billing", "--tenant", "acme", "--scope", "push")
    first, second, *entry = printed.splitlines()
    key = first.removeprefix("The key, shown only now: ")
    assert second == "Its entry:"
    assert printed.count(key) == 1
    assert yaml.safe_load("\n".join(entry)) == [
        {
            "name": "billing",
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "tenant_id": "acme",
            "scopes": ["push"],
        }
    ]
    pasted = "\n".join(f"    {line}" for line in entry)
    auth = settings_of(f"auth:\n  mode: api_key\n  api_keys:\n{pasted}\n").auth
    found = await caller(auth, Credentials(api_key=key))
    assert (found.name, found.tenant_id) == ("billing", "acme")
    assert found.scopes == {Scope.PUSH}


def test_keys_differ_and_are_never_taken_for_tokens() -> None:
    keys = {hash_key().splitlines()[0].split()[-1] for _ in range(20)}
    assert len(keys) == 20
    assert all(len(key) >= 40 and "." not in key and key.startswith("ao_") for key in keys)


@pytest.mark.parametrize("tenant", ["*", "null", "1e3", "on", "12"])
def test_ids_that_yaml_would_read_otherwise_stay_what_they_are(tenant: str) -> None:
    (entry,) = yaml.safe_load(hash_key("--tenant", tenant, "--name", "1").split("entry:\n")[1])
    assert (entry["tenant_id"], entry["name"]) == (tenant, "1")


def test_a_key_of_ones_own_is_read_from_standard_input_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "canary-" * 6
    for ending in ("\n", "\r\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(key + ending))
        printed = hash_key("-", "--tenant", "acme")
        assert "canary" not in printed
        assert yaml.safe_load(printed)[0]["sha256"] == hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    "given", ["", "\n", "short", "c" * 31, "c" * 1025, "canary " * 6, "é" * 40]
)
def test_a_key_that_could_be_guessed_or_not_be_sent_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    with pytest.raises(ConfigurationError) as caught:
        hash_key("-")
    (line,) = caught.value.mistakes
    assert line.startswith("standard input: must be a key of 32 to 1024")
    assert "canary" not in line


@pytest.mark.parametrize(
    "arguments", [("--name", ""), ("--name", "a b"), ("--tenant", "a:b"), ("x",)]
)
def test_an_entry_that_the_settings_would_refuse_is_not_made(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        hash_key(*arguments)
    assert caught.value.code == 2
