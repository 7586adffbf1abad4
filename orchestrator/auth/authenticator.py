"""Credentials to callers: by token or by API key; where the mode is `none`, nobody is asked."""

import time
from collections.abc import Callable

import structlog

from config.auth_rules import has_static_key
from config.settings import AuthSettings, ConfigurationError
from orchestrator.auth.api_keys import ApiKeys
from orchestrator.auth.caller import Caller
from orchestrator.auth.credentials import BadCredentials, Credentials
from orchestrator.auth.jwks import CannotFetch, FileSource, key_set_keys
from orchestrator.auth.key_sets import UnusableKeySet, read_key_set
from orchestrator.auth.keys import static_key
from orchestrator.auth.tokens import KeySource, StaticKey, TokenVerifier

log = structlog.get_logger(__name__)


class Authenticator:
    """Says who calls (contract, section 7). One for each instance.

    A bearer in the shape of a token (two dots) is taken for one where the mode has `jwt`, and for
    an API key else, where the mode has `api_key`. To be asked once for each request or connection,
    and not where it `is_open`: there whatever a request carries is not looked at.

    Raises:
        ConfigurationError: a key that is configured cannot be used.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` are unix seconds, `clock` is the one that cool-downs are measured by."""
        modes = settings.mode
        self.is_open = modes == ("none",)
        self._keys = keys_of(settings, clock) if "jwt" in modes else None
        self._tokens = TokenVerifier(settings.jwt, self._keys, now) if self._keys else None
        self._api_keys = ApiKeys(settings.api_keys) if "api_key" in modes else None

    async def authenticate(self, credentials: Credentials) -> Caller:
        """The caller that the credentials belong to.

        Raises:
            Unauthorized: none are given where some are needed, or they are not good (any more).
            Overloaded: tokens cannot be verified at the moment, as no keys could be fetched yet.
        """
        try:
            return await self._caller(credentials)
        except BadCredentials as error:
            log.info("credentials.refused", reason=error.reason)
            raise

    async def close(self) -> None:
        """Stops what runs for it."""
        if self._keys:
            await self._keys.close()

    async def _caller(self, credentials: Credentials) -> Caller:
        bearer, api_key = credentials.bearer, credentials.api_key
        if bearer is not None and self._tokens and (is_token(bearer) or not self._api_keys):
            return await self._tokens.caller(bearer)
        key = api_key if bearer is None else bearer
        if key is None:
            raise BadCredentials("missing")
        if self._api_keys is None:
            raise BadCredentials("unknown_key")
        return self._api_keys.caller(key)


def is_token(bearer: str) -> bool:
    """True for what looks like a JSON Web Token; API keys are not made with two dots."""
    return bearer.count(".") == 2


def keys_of(settings: AuthSettings, clock: Callable[[], float]) -> KeySource:
    """Where the keys of tokens come from.

    Raises:
        ConfigurationError: a static key cannot be used.
    """
    if has_static_key(settings.jwt):
        return StaticKey(static_key(settings.jwt))
    return key_set_keys(settings.jwt, clock)


def check_keys(settings: AuthSettings) -> None:
    """Looks at once at the keys that are on this machine; an address is asked when it is needed.

    Raises:
        ConfigurationError: they cannot be used.
    """
    jwt = settings.jwt
    if "jwt" not in settings.mode:
        return
    if has_static_key(jwt):
        static_key(jwt)
    elif jwt.jwks_file is not None:
        try:
            read_key_set(FileSource(jwt).read(), jwt.algorithms)
        except (CannotFetch, UnusableKeySet) as error:
            raise ConfigurationError([f"auth.jwt.jwks_file: {error}"]) from error
