"""Keys that tokens are verified and signed with, each fixed to the algorithms it is good for."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from config.auth_rules import is_secret, weak_secret
from config.auth_sections import JwtSettings
from config.settings import ConfigurationError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

RSA_BITS = range(2048, 8193)  # fewer can be broken, more are slow to verify with
LONGEST_KID = 256  # characters of a key's name
LARGEST_FILE = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, and the only algorithms that it verifies: what a token's header says cannot add one.

    A static secret may serve several HMACs; a public key has exactly one algorithm.
    """

    algorithms: tuple[str, ...]
    key: bytes | PublicKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What tokens are signed with, for trying things out."""

    algorithm: str
    key: bytes | PrivateKey = field(repr=False)


def algorithm_of(key: object) -> str | None:
    """The one algorithm that a public key is used with here; None for one that is not used."""
    match key:
        case RSAPublicKey() if key.key_size in RSA_BITS:
            return "RS256"
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return "ES256"
        case Ed25519PublicKey():
            return "EdDSA"
    return None


def static_key(settings: JwtSettings) -> VerifyingKey:
    """The key of `jwt.key` or `jwt.key_file`: a secret, or a PEM with a public key, a certificate,
    or a private key, whose public half is used.

    Raises:
        ConfigurationError: it cannot be read, or does not fit the algorithms.
    """
    name, content = _content(settings)
    if is_secret(settings):
        complaint = _wrong_secret(content, settings)
        if complaint:
            raise _unusable(name, complaint)
        return VerifyingKey(settings.algorithms, content)
    key = _from_pem(name, content)
    public = key.public_key() if isinstance(key, PrivateKey) else key
    algorithm = algorithm_of(public)
    if algorithm is None or algorithm not in settings.algorithms:
        raise _unusable(name, f"does not fit {', '.join(settings.algorithms)}")
    return VerifyingKey((algorithm,), public)


def signing_key(settings: JwtSettings) -> SigningKey | None:
    """The same key, if it can sign: a secret or a private key.

    Raises:
        ConfigurationError: as `static_key`.
    """
    verifying = static_key(settings)
    if isinstance(verifying.key, bytes):
        return SigningKey(verifying.algorithms[0], verifying.key)
    key = _from_pem(*_content(settings))
    return SigningKey(verifying.algorithms[0], key) if isinstance(key, PrivateKey) else None


def _content(settings: JwtSettings) -> tuple[str, bytes]:
    """The setting that names the key, and what the key is."""
    if settings.key is not None:
        return "auth.jwt.key", settings.key.encode()
    name, path = "auth.jwt.key_file", Path(settings.key_file or "")
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _unusable(name, f"cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_FILE:
        raise _unusable(name, f"has more than {LARGEST_FILE} bytes")
    return name, content.rstrip(b"\r\n") if is_secret(settings) else content


def _wrong_secret(secret: bytes, settings: JwtSettings) -> str | None:
    if b"-----BEGIN " in secret:
        return f"is a PEM file, not a secret for {', '.join(settings.algorithms)}"
    return weak_secret(secret, settings.algorithms)


def _from_pem(name: str, content: bytes) -> PublicKey | PrivateKey:
    try:
        key = _loaded(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        complaint = "must be a PEM with a public key, a certificate or a private key, not encrypted"
        raise _unusable(name, complaint) from error
    if not isinstance(key, PublicKey | PrivateKey):
        raise _unusable(name, "must be an RSA, P-256 or Ed25519 key")
    return key


def _loaded(content: bytes) -> object:
    if b"PRIVATE KEY-----" in content:
        return load_pem_private_key(content, password=None)
    if b"-----BEGIN CERTIFICATE-----" in content:
        return load_pem_x509_certificate(content).public_key()
    return load_pem_public_key(content)


def _unusable(name: str, complaint: str) -> ConfigurationError:
    return ConfigurationError([f"{name}: {complaint}"])
