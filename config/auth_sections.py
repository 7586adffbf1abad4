"""The settings of `auth`, as frozen values (contract, sections 7 and 8): a section's own room.

What must hold between them: `config/auth_rules.py`.
"""

from dataclasses import dataclass

from config import rules
from config.rules import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSettings:
    """How tokens are verified."""

    algorithms: tuple[str, ...] = setting(
        (),
        "Signatures that are accepted",
        choices=("HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"),
    )
    key: str | None = setting(
        None, "The static key itself: a secret for HS256 and its kin, else a PEM", secret=True
    )
    key_file: str | None = setting(
        None, "File with the static key, read at the start", check=rules.not_a_folder
    )
    jwks_file: str | None = setting(
        None, "File with a set of public keys, read again when it changes", check=rules.not_a_folder
    )
    jwks_url: str | None = setting(
        None,
        "URL of a set of public keys: https, or http on this machine; redirects are not followed",
        check=rules.jwks_url,
    )
    jwks_max_age: float = setting(
        300.0,
        "How long a set of keys is used before it is fetched again; a key that was taken out of it"
        " is good for so long at the most, while the set can be fetched",
        unit="seconds",
        at_least=1,
        at_most=86400,
    )
    jwks_cooldown: float = setting(
        10.0,
        "Least time between two fetches of a set of keys, whatever keys tokens name",
        unit="seconds",
        at_least=1,
        at_most=3600,
    )
    audience: str | None = setting(None, "What `aud` must contain", check=rules.not_empty)
    issuer: str | None = setting(None, "What `iss` must be", check=rules.not_empty)
    leeway: float = setting(
        30.0, "Difference of clocks that is forgiven", unit="seconds", at_most=60
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySettings:
    """A back-end's key, known only by its hash."""

    name: str = setting("", "What logs call it", check=rules.not_blank, required=True)
    sha256: str = setting(
        "", "SHA-256 of the key, hex", check=rules.sha256_hex, secret=True, required=True
    )
    tenant_id: str = setting(
        "", 'Whose it is; "*" for all tenants', check=rules.outside_id_or_all, required=True
    )
    scopes: tuple[str, ...] = setting(
        (),
        "What it may do: at least one of them",
        choices=("chat", "push", "admin"),
        check=rules.not_none_of_them,
        required=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who may do what (contract, section 7)."""

    mode: tuple[str, ...] = setting(
        ("none",),
        "none, jwt, api_key, or a list of the last two; none only on loopback",
        choices=("none", "jwt", "api_key"),
        check=rules.modes,
    )
    allow_insecure: bool = setting(
        False, "Let mode none listen on other addresses than loopback, open to all who reach them"
    )
    jwt: JwtSettings = setting(  # noqa: RUF009  made anew for each
        JwtSettings, ""
    )
    api_keys: tuple[ApiKeySettings, ...] = setting((), "Keys of back-ends, by their hash")
