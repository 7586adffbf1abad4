"""What must hold between the settings of `auth` (contract, section 7).

Whether a key's file can be read as one is seen where keys are used: `orchestrator/auth/keys.py`.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from config.mistakes import Path, shown
from config.rules import slots_of
from config.sections import AuthSettings, JwtSettings

# A secret is at least as long as the hash it is used with (RFC 7518, section 3.2).
SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
SOURCES = ("key", "key_file", "jwks_file", "jwks_url")
FEWEST_CHARACTERS = 8  # different ones; a random secret of 32 hexadecimal digits has about 14
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


def weak_secret(secret: bytes, algorithms: Sequence[str]) -> str | None:
    """What is wrong with a secret that tokens are signed with, or None. Does not repeat it."""
    least = max(SECRET_BYTES[each] for each in algorithms)
    text = secret.decode("latin-1").lower()
    if len(secret) < least:
        return f"must have at least {least} bytes for {', '.join(algorithms)}, not {len(secret)}"
    is_repeated = text in (text + text)[1:-1]
    if is_repeated or len(set(text)) < FEWEST_CHARACTERS or any(map(text.count, WELL_KNOWN)):
        return "is easily guessed; make one: openssl rand -hex 64"
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
    secret = [each for each in jwt.algorithms if each in SECRET_BYTES]
    public = [each for each in jwt.algorithms if each not in SECRET_BYTES]
    source = next(iter(_sources(jwt)), "")
    if source.startswith("jwks") and secret:
        return f"{secret[0]} needs a secret in jwt.key or jwt.key_file: key sets hold public keys"
    if source.startswith("key") and (len(public) > 1 or (public and secret)):
        return f"one key cannot serve {' and '.join(jwt.algorithms)}"
    return None


def _secret_is_strong(auth: AuthSettings) -> str | None:
    jwt = auth.jwt
    if jwt.key is None or not jwt.algorithms or not SECRET_BYTES.keys() >= set(jwt.algorithms):
        return None
    return weak_secret(jwt.key.encode(), jwt.algorithms)


def _jwt_is_used(auth: AuthSettings) -> str | None:
    if "jwt" in auth.mode:
        return None
    slots = slots_of(JwtSettings)
    given = [slot.name for slot in slots if getattr(auth.jwt, slot.name) != slot.default]
    return f"{given[0]} has no effect: auth.mode does not have jwt" if given else None


def _api_keys_are_used(auth: AuthSettings) -> str | None:
    if auth.api_keys and "api_key" not in auth.mode:
        return "has no effect: auth.mode does not have api_key"
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
    ((JWT, MODE), _jwt_is_used),
    ((KEYS, MODE), _api_keys_are_used),
    ((KEYS,), _api_keys_differ),
)
