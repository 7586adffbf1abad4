"""Reading a JSON Web Key Set: which of its keys may verify tokens, and by what name (RFC 7517).

A key is taken only if everything that it says about itself fits an algorithm of the settings. The
rest of a set is passed over, so that an issuer may publish keys for other purposes beside ours.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from jwt.api_jwk import PyJWK
from jwt.exceptions import PyJWTError

from orchestrator.auth.keys import LONGEST_KID, PublicKey, VerifyingKey, algorithm_of

LARGEST_SET = 256 * 1024  # bytes
MOST_KEYS = 100
PRIVATE = ("d", "k", "p", "q", "dp", "dq", "qi", "oth")  # a set for verifying has none of these


class UnusableKeySet(Exception):
    """What was read is no key set, or has no key that could verify a token."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by name. `only` is for tokens that name no key: the set's key, if it has but one."""

    named: Mapping[str, VerifyingKey]
    only: VerifyingKey | None

    def find(self, kid: str | None) -> VerifyingKey | None:
        return self.only if kid is None else self.named.get(kid)


def read_key_set(content: bytes, algorithms: Sequence[str]) -> KeySet:
    """The keys that verify one of the algorithms. Of keys with the same name none is taken: which
    of them is meant would be anybody's guess.

    Raises:
        UnusableKeySet: with the reason.
    """
    usable = [
        (entry.get("kid"), key)
        for entry in _entries(content)
        if (key := _key_of(entry, algorithms)) is not None
    ]
    times = Counter(kid for kid, _ in usable)
    named = {kid: key for kid, key in usable if kid is not None and times[kid] == 1}
    only = usable[0][1] if len(usable) == 1 else None
    if not named and only is None:
        raise UnusableKeySet("no key that fits the algorithms")
    return KeySet(named, only)


def _entries(content: bytes) -> list[dict[str, Any]]:
    if len(content) > LARGEST_SET:
        raise UnusableKeySet("too large")
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UnusableKeySet("not JSON") from error
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise UnusableKeySet("no list of keys")
    if len(keys) > MOST_KEYS:
        raise UnusableKeySet("too many keys")
    return [key for key in keys if isinstance(key, dict)]


def _key_of(entry: Mapping[str, Any], algorithms: Sequence[str]) -> VerifyingKey | None:
    """The key, or None where it is secret, malformed, or not for verifying our algorithms."""
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= LONGEST_KID):
        return None
    if entry.get("use", "sig") != "sig" or not _may_verify(entry.get("key_ops")):
        return None
    public = _public_key(entry)
    algorithm = algorithm_of(public)
    if public is None or algorithm is None or algorithm not in algorithms:
        return None
    if entry.get("alg", algorithm) != algorithm:
        return None
    return VerifyingKey((algorithm,), public)


def _may_verify(operations: object) -> bool:
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _public_key(entry: Mapping[str, Any]) -> PublicKey | None:
    """What `kty` and its parameters say. Certificates and addresses in it are never looked at."""
    if any(name in entry for name in PRIVATE):
        return None
    family = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}.get(str(entry.get("kty")))
    if family is None:
        return None
    try:
        key = PyJWK(dict(entry), algorithm=family).key
    except (PyJWTError, ValueError, TypeError, ArithmeticError, AttributeError):
        return None  # whatever is wrong in there, it is no key
    return key if isinstance(key, PublicKey) else None
