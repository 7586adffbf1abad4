"""What must hold between the settings of authentication (row S5 of the checklist)."""

import pytest

from config.auth_rules import has_static_key, is_secret, weak_secret
from config.auth_sections import JwtSettings
from tests.support.configuration import mistakes_of, settings_of

RANDOM = "9b1c4d7e0f2a58636b7d8c9a0e1f2b3c4d5e6f708192a3b4c5d6e7f809182736"
ALL = "'*'"
HASH, OTHER_HASH = "ab" * 32, "cd" * 32
SOURCES = "one of key, key_file, jwks_file, jwks_url must be given, not"


def api_key(name: str = "a", sha256: str = HASH, tenant_id: str = "acme") -> str:
    return f"{{name: {name}, sha256: {sha256}, tenant_id: {tenant_id}, scopes: chat}}"


@pytest.mark.parametrize(
    "auth",
    [
        f"mode: jwt, jwt: {{algorithms: HS256, key: {RANDOM}}}",
        f"mode: jwt, jwt: {{algorithms: [HS256, HS384, HS512], key: {RANDOM}}}",
        "mode: jwt, jwt: {algorithms: RS256, key_file: /etc/key.pem, audience: a, issuer: b}",
        "mode: [jwt], jwt: {algorithms: [RS256, ES256, EdDSA], jwks_file: keys.json}",
        "mode: jwt, jwt: {algorithms: RS256, jwks_url: 'https://id.example/keys'}",
        f"mode: api_key, api_keys: [{api_key()}, {api_key('b', OTHER_HASH, ALL)}]",
        f"mode: [jwt, api_key], jwt: {{algorithms: RS256, key_file: k}}, api_keys: [{api_key()}]",
        f"mode: none, jwt: {{algorithms: HS256, key: {RANDOM}}}, api_keys: [{api_key()}]",
    ],
)
def test_settings_that_fit_are_taken(auth: str) -> None:
    assert mistakes_of(f"auth: {{{auth}}}") == []


@pytest.mark.parametrize(
    ("auth", "mistakes"),
    [
        (
            "mode: jwt",
            [
                "auth.jwt.algorithms: must list at least one where auth.mode has jwt",
                f"auth.jwt.key: {SOURCES} none",
            ],
        ),
        ("mode: jwt, jwt: {algorithms: RS256}", [f"auth.jwt.key: {SOURCES} none"]),
        (
            "mode: jwt, jwt: {algorithms: RS256, key_file: k, jwks_url: 'https://id.example/'}",
            [f"auth.jwt.key: {SOURCES} key_file and jwks_url"],
        ),
        (
            "mode: jwt, jwt: {algorithms: [HS256, RS256], key: canary}",
            ["auth.jwt.algorithms: one key cannot serve HS256 and RS256"],
        ),
        (
            "mode: jwt, jwt: {algorithms: [ES256, RS256], key_file: k}",
            ["auth.jwt.algorithms: one key cannot serve ES256 and RS256"],
        ),
        (
            "mode: jwt, jwt: {algorithms: [RS256, HS512], jwks_file: k}",
            [
                "auth.jwt.algorithms: HS512 needs a secret in jwt.key or jwt.key_file:"
                " key sets hold public keys"
            ],
        ),
        (
            "mode: api_key",
            ["auth.api_keys: must list at least one where auth.mode has api_key"],
        ),
        (
            f"mode: api_key, api_keys: [{api_key()}, {api_key('a', OTHER_HASH)}]",
            ["auth.api_keys: the name 'a' is given twice"],
        ),
        (
            f"mode: api_key, api_keys: [{api_key()}, {api_key('b')}]",
            ["auth.api_keys: 'a' and 'b' are the same key"],
        ),
    ],
)
def test_settings_that_do_not_fit_are_a_clear_line_each(auth: str, mistakes: list[str]) -> None:
    assert mistakes_of(f"auth: {{{auth}}}") == [f"test.yaml:1: {line}" for line in mistakes]


@pytest.mark.parametrize(
    ("algorithm", "length", "is_taken"),
    [
        ("HS256", 31, False),
        ("HS256", 32, True),
        ("HS512", 31, False),
        ("[HS256, HS384, HS512]", 32, True),
    ],
)
def test_a_secret_has_32_bytes_at_least(algorithm: str, length: int, is_taken: bool) -> None:
    secret = RANDOM[:length]
    lines = mistakes_of(f"auth: {{mode: jwt, jwt: {{algorithms: {algorithm}, key: {secret}}}}}")
    assert (lines == []) is is_taken
    assert secret not in "".join(lines)
    assert is_taken or f"not {length}" in lines[0]


@pytest.mark.parametrize(
    "secret",
    [
        '""',
        "secret",
        "canary",
        "please-changeme-please-0123456789abcdef",
        "CHANGE-ME-0123456789-abcdefghijklmnop",
        "your-256-bit-secret-0123456789abcdef",
        "a-string-secret-at-least-256-bits-long",
        "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    ],
)
def test_an_empty_short_or_well_known_secret_is_refused_without_repeating_it(secret: str) -> None:
    (line,) = mistakes_of(f"auth: {{mode: jwt, jwt: {{algorithms: HS256, key: {secret}}}}}")
    assert "auth.jwt.key: must have at least 32 bytes" in line or "is out of a manual" in line
    assert len(secret) < 6 or secret.strip('"') not in line


def test_random_secrets_are_strong_in_every_spelling() -> None:
    for secret in (
        bytes(range(200, 232)),
        b"MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw",
        b"9f3a" * 7 + b"b1c7",
    ):
        assert weak_secret(secret, ["HS256"]) is None


@pytest.mark.parametrize(
    ("algorithms", "is_one"),
    [
        (("HS256",), True),
        (("HS512", "HS384"), True),
        (("HS256", "RS256"), False),
        (("EdDSA",), False),
        ((), False),
    ],
)
def test_a_key_is_a_secret_where_tokens_are_signed_with_nothing_else(
    algorithms: tuple[str, ...], is_one: bool
) -> None:
    assert is_secret(JwtSettings(algorithms=algorithms)) is is_one


def test_a_key_is_static_where_it_is_configured_itself() -> None:
    assert has_static_key(JwtSettings(key="k"))
    assert has_static_key(JwtSettings(key_file="k"))
    for elsewhere in (JwtSettings(), JwtSettings(jwks_file="k"), JwtSettings(jwks_url="k")):
        assert not has_static_key(elsewhere)


@pytest.mark.parametrize("tenant_id", ["''", "a:b", "'**'", "a b", "'{a}'"])
def test_the_tenant_of_a_key_is_an_id_or_a_star(tenant_id: str) -> None:
    (line,) = mistakes_of(f"auth: {{mode: api_key, api_keys: [{api_key(tenant_id=tenant_id)}]}}")
    assert "auth.api_keys.0.tenant_id: must be an id" in line


def test_a_key_without_scopes_is_refused() -> None:
    begun = f"auth: {{mode: api_key, api_keys: [{{name: a, sha256: {HASH}, tenant_id: b"
    assert mistakes_of(f"{begun}, scopes: []}}]}}") == [
        "test.yaml:1: auth.api_keys.0.scopes: must name at least one"
    ]
    assert mistakes_of(f"{begun}}}]}}") == ["test.yaml:1: auth.api_keys.0.scopes: must be given"]
    (line,) = mistakes_of(f"{begun}, scopes: [chat, root]}}]}}")
    assert "auth.api_keys.0.scopes.1: must be one of chat, push, admin" in line


def test_a_secret_may_come_from_a_variable() -> None:
    text = "auth: {mode: jwt, jwt: {algorithms: HS256}}"
    settings = settings_of(text, ORCHESTRATOR_AUTH__JWT__KEY=RANDOM)
    assert settings.auth.jwt.key == RANDOM
    assert RANDOM not in repr(settings)
    (line,) = mistakes_of(text, ORCHESTRATOR_AUTH__JWT__KEY="canary")
    assert line.startswith("ORCHESTRATOR_AUTH__JWT__KEY: auth.jwt.key: must have at least 32")
    assert "canary" not in line
