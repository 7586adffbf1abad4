"""Key sets from a file or a URL: kept, fetched again, and never because strangers ask for it.

- A set is used for `jwks_max_age`; whoever asks after that waits for it to be fetched again.
- A key that the set does not have has it fetched again at once: the issuer may have a new one.
- Between two fetches lies `jwks_cooldown`, whoever asks and whether or not the first succeeded.
  Those who ask while one runs share it. So strangers with made-up names cannot have it fetched more
  often, and can keep a new key waiting for one cool-down at the most.
- A fetch that fails changes nothing: the last good set is used on, for a day at the most.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from common.domain.errors import Overloaded
from config.auth_sections import JwtSettings
from orchestrator.auth.key_sets import LARGEST_SET, KeySet, UnusableKeySet, read_key_set
from orchestrator.auth.keys import VerifyingKey

log = structlog.get_logger(__name__)

FETCH_WITHIN = 2.0  # seconds, for all of it: name, connection, TLS, answer
LARGEST_HEAD = 16 * 1024  # bytes of an answer's headers
NO_ANSWER = 599  # what Tornado calls an answer that did not come, or was not to be read
STALE_FOR = 86400.0  # seconds that a set which cannot be fetched again is used on


class CannotFetch(Exception):
    """The key set could not be had; the message says why, in a few words without secrets."""


class Source(Protocol):
    """Where a key set is."""

    max_age: float  # seconds that a set from there is used before it is fetched again

    async def fetch(self) -> bytes:
        """Its content. Raises CannotFetch."""

    def close(self) -> None:
        """Lets go of what it holds."""


class FileSource:
    """A file, looked at whenever the cool-down allows. To change it, rename another one onto it:
    one that is read half-written is refused, and read again after the next cool-down."""

    def __init__(self, settings: JwtSettings) -> None:
        self._path = Path(settings.jwks_file or "")
        self.max_age = min(settings.jwks_max_age, settings.jwks_cooldown)

    async def fetch(self) -> bytes:
        return self.read()

    def read(self) -> bytes:
        """Reading is quick: a file of this machine, and no larger than a key set may be."""
        try:
            with self._path.open("rb") as file:
                return file.read(LARGEST_SET + 1)
        except OSError as error:
            raise CannotFetch(f"cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is held."""


class UrlSource:
    """An address, verified by TLS. Redirects are not followed: where the set is, is configured."""

    def __init__(self, settings: JwtSettings) -> None:
        self._url = settings.jwks_url or ""
        self.max_age = settings.jwks_max_age
        self._tls = ssl.create_default_context()  # SSL_CERT_FILE names other authorities
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._client: SimpleAsyncHTTPClient | None = None

    async def fetch(self) -> bytes:
        request = HTTPRequest(
            self._url,
            headers={"Accept": "application/jwk-set+json, application/json"},
            connect_timeout=FETCH_WITHIN,
            request_timeout=FETCH_WITHIN,
            follow_redirects=False,
            decompress_response=False,
            ssl_options=self._tls,
        )
        if self._client is None:  # made here, as it belongs to the loop that runs
            self._client = _client()
        try:
            return (await self._client.fetch(request)).body
        except HTTPClientError as error:
            reason = error.message if error.code == NO_ANSWER else f"answered {error.code}"
            raise CannotFetch(reason) from error
        except Exception as error:  # Tornado lets through what strange servers make of it
            raise CannotFetch(f"no answer: {type(error).__name__}") from error

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _client() -> SimpleAsyncHTTPClient:
    return SimpleAsyncHTTPClient(
        force_instance=True,
        max_clients=1,
        max_header_size=LARGEST_HEAD,
        max_body_size=LARGEST_SET,
        max_buffer_size=LARGEST_SET + LARGEST_HEAD,
        defaults={"user_agent": "agent-orchestrator"},
    )


class KeySetKeys:
    """The keys of a set, by name."""

    def __init__(
        self, source: Source, settings: JwtSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._settings = settings
        self._clock = clock
        self._content = b""
        self._keys: KeySet | None = None
        self._good_at = -float("inf")  # when the set was last known to be current
        self._tried_at = -float("inf")  # when it was last asked for
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """The key of that name, or None where the set, as fresh as it can be had, has no such one.

        Raises:
            Overloaded: there has been no set so far, or none for a day.
        """
        if self._is_older_than(self._source.max_age):
            await self._refresh()
        found = self._current().find(kid)
        if found is None:
            await self._refresh()
            found = self._current().find(kid)
        return found

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching
        self._source.close()

    def _current(self) -> KeySet:
        if self._keys is None or self._is_older_than(STALE_FOR):
            raise Overloaded("The keys of tokens cannot be fetched at the moment.")
        return self._keys

    def _is_older_than(self, seconds: float) -> bool:
        return self._clock() - self._good_at >= seconds

    async def _refresh(self) -> None:
        """Fetches the set, or waits for the fetch that runs, or does nothing: it was just tried.

        Those who wait may be cancelled; the fetch goes on for the others.
        """
        if self._fetching is None:
            if self._clock() - self._tried_at < self._settings.jwks_cooldown:
                return
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch(), name="auth.jwks")
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._take(await self._source.fetch())
        except (CannotFetch, UnusableKeySet) as error:
            log.warning("key_set.not_read", reason=str(error), has_older=self._keys is not None)
        finally:
            self._fetching = None

    def _take(self, content: bytes) -> None:
        if content != self._content:
            self._keys = read_key_set(content, self._settings.algorithms)
            self._content = content
            log.info("key_set.read", keys=len(self._keys.named))
        self._good_at = self._clock()


def key_set_keys(settings: JwtSettings, clock: Callable[[], float] = time.monotonic) -> KeySetKeys:
    """The keys of `jwt.jwks_file` or `jwt.jwks_url`; nothing is read before it is needed."""
    source = FileSource(settings) if settings.jwks_file is not None else UrlSource(settings)
    return KeySetKeys(source, settings, clock)
