"""JSON Web Tokens: who signed them, and whom they speak of (contract, section 7; RFC 8725).

The signature is PyJWT's business, with one key and only the algorithms that this key is fixed to.
The claims are checked here, strictly by type: a claim that is not what it must be is never taken
for one that is missing.
"""

import base64
import binascii
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from common.domain.ids import SessionId, TenantId, UserId, is_outside_id
from config.auth_sections import JwtSettings
from orchestrator.auth.caller import Caller, Scope
from orchestrator.auth.credentials import BadCredentials
from orchestrator.auth.keys import LONGEST_KID, VerifyingKey

LONGEST = 8192  # characters; headers and addresses have to hold it as well
LATEST = 253_402_300_799  # the last second of the year 9999; nothing sensible is later
SCOPES = frozenset(Scope)

Claims = Mapping[str, Any]


class KeySource(Protocol):
    """Where the keys come from: one that is configured, or a key set."""

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """The key of that name, or None. `kid` is a name only: it is never a path or an address."""

    async def close(self) -> None:
        """Stops what runs for it."""


class StaticKey:
    """One key for all tokens, whatever `kid` they name."""

    def __init__(self, key: VerifyingKey) -> None:
        self._key = key

    async def find(self, kid: str | None) -> VerifyingKey | None:  # noqa: ARG002  one for all
        return self._key

    async def close(self) -> None:
        """Nothing runs for it."""


class TokenVerifier:
    """Verifies tokens: about 0.1 ms of the loop each, so once for each connection or request."""

    def __init__(
        self, settings: JwtSettings, keys: KeySource, now: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._now = now
        self._signatures = PyJWS()

    async def caller(self, token: str) -> Caller:
        """Whom a token speaks of, if it is genuine and its time has come and not passed.

        Raises:
            BadCredentials: it is not.
            Overloaded: no key set could be fetched so far.
        """
        if len(token) > LONGEST or not token.isascii():
            raise BadCredentials("malformed")
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms:
            raise BadCredentials("algorithm")
        if "crit" in header or not _is_kid(kid):
            raise BadCredentials("header")
        key = await self._keys.find(kid)
        if key is None:
            raise BadCredentials("unknown_kid")
        if algorithm not in key.algorithms:
            raise BadCredentials("algorithm")
        return self._caller(self._claims(token, key))

    def _claims(self, token: str, key: VerifyingKey) -> Claims:
        """What is signed; nothing of it is looked at before the signature is found good. How long
        keys have to be is seen where they are read."""
        try:
            payload = self._signatures.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                options={"verify_signature": True, "enforce_minimum_key_length": False},
            )
        except PyJWTError as error:
            raise BadCredentials("signature") from error
        return _object(payload)

    def _caller(self, claims: Claims) -> Caller:
        expires_at = self._check_times(claims)
        self._check_origin(claims)
        user_id = UserId(_id(claims, "sub"))
        return Caller(
            name=user_id,
            tenant_id=TenantId(_id(claims, "tenant_id")),
            user_id=user_id,
            sessions=_sessions(claims),
            scopes=_scopes(claims),
            expires_at=expires_at,
        )

    def _check_times(self, claims: Claims) -> float:
        """When the token ends, with the leeway. A second's fraction is taken as given."""
        leeway, now = self._settings.leeway, self._now()
        expires_at = _time(claims, "exp") + leeway
        if expires_at <= now:
            raise BadCredentials("expired", "The token has expired.")
        for name in ("nbf", "iat"):
            if name in claims and _time(claims, name) > now + leeway:
                raise BadCredentials(name, "The token is not valid yet.")
        return expires_at

    def _check_origin(self, claims: Claims) -> None:
        """`iss` and `aud` are compared where the settings name one, and must be text anyway."""
        issuer, audience = claims.get("iss", ""), claims.get("aud", [])
        audiences = audience if isinstance(audience, list) else [audience]
        if not isinstance(issuer, str) or self._settings.issuer not in (None, issuer):
            raise BadCredentials("iss")
        if not all(isinstance(each, str) for each in audiences):
            raise BadCredentials("aud")
        if self._settings.audience is not None and self._settings.audience not in audiences:
            raise BadCredentials("aud")


# --- The token's parts ----------------------------------------------------------------------


def _header(token: str) -> Claims:
    """The header, which nothing but the choice of the key is made by."""
    first, *others = token.split(".")
    if len(others) != 2:
        raise BadCredentials("malformed")
    try:
        return _object(base64.b64decode(first + "=" * (-len(first) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadCredentials("malformed") from error


def _object(text: bytes) -> Claims:
    """A JSON object, read strictly: no NaN, no infinity, no lone surrogates. A name that is given
    twice counts as it was given last."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadCredentials("malformed") from error
    if not isinstance(value, dict):
        raise BadCredentials("malformed")
    return value


def _is_kid(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= LONGEST_KID)


# --- Claims ---------------------------------------------------------------------------------


def _time(claims: Claims, name: str) -> float:
    """A NumericDate: unix seconds."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadCredentials(name)
    if not (math.isfinite(value) and 0 <= value <= LATEST):
        raise BadCredentials(name)
    return float(value)


def _id(claims: Claims, name: str) -> str:
    return _as_id(claims.get(name), name)


def _as_id(value: object, name: str) -> str:
    if not isinstance(value, str) or not is_outside_id(value):
        raise BadCredentials(name)
    return value


def _sessions(claims: Claims) -> frozenset[SessionId] | None:
    """The sessions that the token is for; None for all. Naming them in both ways is refused."""
    given = [name for name in ("session_id", "sessions") if name in claims]
    if not given:
        return None
    name = given[0]
    listed = [claims[name]] if name == "session_id" else claims[name]
    if len(given) > 1 or not isinstance(listed, list):
        raise BadCredentials("sessions")
    return frozenset(SessionId(_as_id(each, name)) for each in listed)


def _scopes(claims: Claims) -> frozenset[Scope]:
    """What the token is good for; words of other services are passed over. None given: nothing."""
    given = claims.get("scope", "")
    words = given.split(" ") if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadCredentials("scope")
    return frozenset(scope for scope in SCOPES if scope in words)
