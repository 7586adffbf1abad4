"""What must hold between the settings of `auth` (contract, section 7).

Whether a key's file can be read as one is seen where keys are used: `orchestrator/auth/keys.py`.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from config.auth_sections import AuthSettings, JwtSettings
from config.mistakes import Path, shown

SECRET_ALGORITHMS = frozenset({"HS256", "HS384", "HS512"})
# Bytes, as of SHA-256's hash: what is shorter can be searched for (RFC 7518, section 3.2). A longer
# hash makes the same secret no weaker.
SHORTEST_SECRET = 32
SOURCES = ("key", "key_file", "jwks_file", "jwks_url")
# Out of manuals and examples: everybody knows them.
WELL_KNOWN = (
    "changeme",
    "change-me",
    "change_me",
    "change this",
    "-256-bit-secret",
    "-256-bits-long",
    "-384-bits-long",
    "-512-bits-long",
)


def has_static_key(jwt: JwtSettings) -> bool:
    """True where the key itself is configured, and not where to find a set of keys."""
    return jwt.key is not None or jwt.key_file is not None


def is_secret(jwt: JwtSettings) -> bool:
    """True where that key is a secret, shared with whoever signs tokens."""
    return bool(jwt.algorithms) and SECRET_ALGORITHMS.issuperset(jwt.algorithms)


def weak_secret(secret: bytes, algorithms: Sequence[str]) -> str | None:
    """What is wrong with a secret that tokens are signed with, or None. Does not repeat it."""
    text, named = secret.decode("latin-1").lower(), ", ".join(algorithms)
    if len(secret) < SHORTEST_SECRET:
        return f"must have at least {SHORTEST_SECRET} bytes for {named}, not {len(secret)}"
    if any(map(text.count, WELL_KNOWN)):
        return "is out of a manual; make one: openssl rand -hex 64"
    return None


def _algorithms_are_listed(auth: AuthSettings) -> str | None:
    return _if_jwt(auth, not auth.jwt.algorithms, "must list at least one where auth.mode has jwt")


def _there_is_one_source_of_keys(auth: AuthSettings) -> str | None:
    given = _sources(auth.jwt)
    found = " and ".join(given) or "none"
    return _if_jwt(auth, len(given) != 1, f"one of {', '.join(SOURCES)} must be given, not {found}")


def _algorithms_fit_the_source(auth: AuthSettings) -> str | None:
    """One key has one type, and what is public must never serve as a secret."""
    jwt = auth.jwt
    secret = [each for each in jwt.algorithms if each in SECRET_ALGORITHMS]
    public = [each for each in jwt.algorithms if each not in SECRET_ALGORITHMS]
    source = next(iter(_sources(jwt)), "")
    if source.startswith("jwks") and secret:
        return f"{secret[0]} needs a secret in jwt.key or jwt.key_file: key sets hold public keys"
    if source.startswith("key") and (len(public) > 1 or (public and secret)):
        return f"one key cannot serve {' and '.join(jwt.algorithms)}"
    return None


def _secret_is_strong(auth: AuthSettings) -> str | None:
    jwt = auth.jwt
    if jwt.key is None or not is_secret(jwt):
        return None
    return weak_secret(jwt.key.encode(), jwt.algorithms)


def _there_are_api_keys(auth: AuthSettings) -> str | None:
    if "api_key" in auth.mode and not auth.api_keys:
        return "must list at least one where auth.mode has api_key"
    return None


def _api_keys_differ(auth: AuthSettings) -> str | None:
    if name := _repeated([each.name for each in auth.api_keys]):
        return f"the name {shown(name)} is given twice"
    if repeated := _repeated([each.sha256 for each in auth.api_keys]):
        names = [shown(each.name) for each in auth.api_keys if each.sha256 == repeated]
        return f"{' and '.join(names)} are the same key"
    return None


def _if_jwt(auth: AuthSettings, is_wrong: bool, complaint: str) -> str | None:
    return complaint if "jwt" in auth.mode and is_wrong else None


def _sources(jwt: JwtSettings) -> list[str]:
    return [name for name in SOURCES if getattr(jwt, name) is not None]


def _repeated(values: Sequence[str]) -> str | None:
    return next((value for value, times in Counter(values).items() if times > 1), None)


JWT = ("auth", "jwt")
MODE = ("auth", "mode")
KEYS = ("auth", "api_keys")

# As in config/settings.py: the setting that is complained about stands first.
TOGETHER: tuple[tuple[tuple[Path, ...], Callable[[AuthSettings], str | None]], ...] = (
    (((*JWT, "algorithms"), MODE), _algorithms_are_listed),
    ((*((*JWT, source) for source in SOURCES), MODE), _there_is_one_source_of_keys),
    (((*JWT, "algorithms"), JWT), _algorithms_fit_the_source),
    (((*JWT, "key"), (*JWT, "algorithms")), _secret_is_strong),
    ((KEYS, MODE), _there_are_api_keys),
    ((KEYS,), _api_keys_differ),
)
