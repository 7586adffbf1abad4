"""What a Redis URL may say, and that it cannot switch verification off."""

from pathlib import Path

import pytest

from config.redis_url import complaint
from tests.support.certificates import Authority
from tests.support.configuration import mistakes_of


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://redis",
        "rediss://user:pass%20word@redis.example.com:6380/15",
        "rediss://redis?ssl_cert_reqs=required&ssl_check_hostname=True",
        "redis://[::1]:6379",
        "unix:///run/redis/redis.sock?db=3",
    ],
)
def test_urls_of_redis(url: str) -> None:
    assert complaint(url) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "embedded", "localhost:6379", "http://canary@host", "redis://"),
        *("redis://:canary@:6379", "redis://host:canary", "redis://host:70000", "redis://host:0"),
        *("redis://host/canary", "redis://ho st", "redis://[::1", "unix://"),
    ],
)
def test_what_is_no_url_of_redis_is_refused_without_repeating_it(url: str) -> None:
    wrong = complaint(url)
    assert wrong
    assert "must be a URL" in wrong
    assert "canary" not in wrong


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ssl_cert_reqs=none", "ssl_cert_reqs that is not required"),
        ("ssl_cert_reqs=optional", "ssl_cert_reqs that is not required"),
        ("ssl_cert_reqs=", "ssl_cert_reqs that is not required"),
        ("ssl%5Fcert%5Freqs=none", "ssl_cert_reqs that is not required"),
        ("ssl_check_hostname=false", "ssl_check_hostname that is not true"),
        ("ssl_check_hostname=0", "ssl_check_hostname that is not true"),
        ("ssl_cert_reqs=required&ssl_cert_reqs=none", "twice"),
        ("ssl_min_version=769", "unknown option"),
        ("ssl_ciphers=ALL", "unknown option"),
        ("protocol=3", "unknown option"),
        ("SSL_CERT_REQS=none", "unknown option"),
        ("canary@host", "unknown option"),  # a `?` within a password
        ("db=canary", "db that is no number"),
        ("ssl_ca_certs=/no/canary", "cannot be read: No such file"),
        ("ssl_ca_certs=", "cannot be read"),
        (f"ssl_ca_certs={__file__}", "holds nothing that fits"),
        (f"ssl_certfile={__file__}", "holds nothing that fits"),
        (f"ssl_keyfile={__file__}", "without ssl_certfile"),
    ],
)
def test_options_that_weaken_or_cannot_work_are_refused(query: str, said: str) -> None:
    wrong = complaint(f"rediss://:canary@redis:6379/0?{query}")
    assert wrong
    assert said in wrong
    assert "canary" not in wrong


def test_files_of_tls_are_read_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.certificate("client")
    url = f"redis://redis?ssl_ca_certs={authority.path}"
    assert "for rediss:// only" in (complaint(url) or "")
    for query in (
        f"ssl_ca_certs={authority.path}",
        f"ssl_certfile={shown.certificate}&ssl_keyfile={shown.key}",
    ):
        assert complaint(f"rediss://redis?{query}") is None
    other = authority.certificate("other")
    mixed = f"ssl_certfile={shown.certificate}&ssl_keyfile={other.key}"
    assert "holds nothing that fits" in (complaint(f"rediss://redis?{mixed}") or "")


def test_the_orchestrator_does_not_start_without_verification() -> None:
    (line,) = mistakes_of("redis: {url: 'rediss://:canary@redis/0?ssl_cert_reqs=none'}")
    assert line.startswith("test.yaml:1: redis.url: has an option ssl_cert_reqs that is not")
    assert "canary" not in line
