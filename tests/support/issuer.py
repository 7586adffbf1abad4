"""An issuer of tokens for tests: keys of each kind, tokens right and wrong, and key sets."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

from config.auth_sections import JwtSettings
from orchestrator.auth.keys import PrivateKey, PublicKey
from tests.support.canary import CANARY

HMAC_KEY = f"{CANARY}-9b1c4d7e0f2a58636b7d8c9a0e1f2b3c4d5e6f708192a3b4c5d6e7f8091827"
NOW = 1_800_000_000  # when the tests of claims take place

# Made once: an RSA key takes a tenth of a second.
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_RSA = rsa.generate_private_key(65537, key_size=1024)  # noqa: S505  as it must be refused
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE_KEYS: Mapping[str, PrivateKey] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def hmac_settings(**changes: Any) -> JwtSettings:
    return JwtSettings(**{"algorithms": ("HS256",), "key": HMAC_KEY, **changes})


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; None leaves one out."""
    good = {"tenant_id": "acme", "sub": "alice", "scope": "chat", "exp": NOW + 60}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(
    payload: Mapping[str, Any],
    key: Any = HMAC_KEY,
    algorithm: str = "HS256",
    headers: Mapping[str, Any] | None = None,
) -> str:
    return jwt.encode(dict(payload), key, algorithm=algorithm, headers=dict(headers or {}))


def forged(header: Any, payload: Any, key: Any = HMAC_KEY, algorithm: str = "HS256") -> str:
    """A token with any header and payload, bytes or values, signed by `algorithm` all the same."""
    signed = f"{part(header)}.{part(payload)}"
    signer = get_default_algorithms()[algorithm]
    signature = signer.sign(signed.encode(), signer.prepare_key(key))
    return f"{signed}.{base64url(signature)}"


def hmac_with_anything(header: Any, payload: Any, secret: bytes) -> str:
    """A token signed with HS256 and a secret that no careful library would take for one."""
    import hashlib
    import hmac

    signed = f"{part(header)}.{part(payload)}"
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def part(value: Any) -> str:
    return base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def jwk(private: PrivateKey, **fields: Any) -> dict[str, Any]:
    """The public half as an entry of a key set; None leaves a field out."""
    kind = next(name for name, key in PRIVATE_KEYS.items() if type(key) is type(private))
    entry = get_default_algorithms()[kind].to_jwk(private.public_key(), as_dict=True)
    entry.pop("key_ops", None)
    given = {**entry, "kid": "one", "alg": kind, "use": "sig", **fields}
    return {name: value for name, value in given.items() if value is not None}


def key_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


def public_pem(key: PrivateKey | PublicKey) -> bytes:
    public = key.public_key() if isinstance(key, PrivateKey) else key
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def in_file(folder: Path, content: bytes) -> str:
    """The path of a file with that content."""
    file = folder / "key"
    file.write_bytes(content)
    return str(file)
