"""What single values may be."""

import pytest

from config import rules
from tests.support.configuration import mistakes_of


def test_the_embedded_redis_is_a_url_of_redis_too() -> None:
    assert rules.redis_url("embedded") is None
    assert rules.redis_url("redis://127.0.0.1:6379/0") is None
    assert "must be embedded, or a URL" in (rules.redis_url("Embedded") or "")


@pytest.mark.parametrize("prefix", ["orchestrator:", "a", "p:1/x-", "!~"])
def test_key_prefixes(prefix: str) -> None:
    assert rules.no_braces(prefix) is None


@pytest.mark.parametrize("prefix", ["", "a{b", "}", "a b", "ä", "a\n", "x" * 129])
def test_a_key_prefix_with_braces_or_worse_is_refused(prefix: str) -> None:
    assert rules.no_braces(prefix)


@pytest.mark.parametrize("name", ["a", "Acme-1", "a.b@c_d", "9", "x" * 128])
def test_ids(name: str) -> None:
    assert rules.outside_id(name) is None


@pytest.mark.parametrize("name", ["", "-a", "a b", "a:b", "{a}", "a\n", "ä", "x" * 129])
def test_what_is_no_id(name: str) -> None:
    assert rules.outside_id(name)


def test_an_agent_for_nobody_is_refused() -> None:
    assert rules.outside_ids(()) == "must name at least one tenant; leave it out to mean all"
    assert rules.outside_ids(("a", "b:c"))
    assert rules.outside_ids(("a", "b")) is None


def test_origins() -> None:
    assert rules.origins(("*", "https://a.example", "http://localhost:3000")) is None
    for origin in (
        "a.example",
        "https://",
        "https://a/",
        "https://a?x",
        "null",
        "ftp://a",
        "https://*:1/x",
    ):
        assert rules.origins((origin,)), origin


def test_proxies() -> None:
    assert rules.networks(("10.0.0.0/8", "10.0.0.1", "10.0.0.1/8", "::1", "fd00::/8")) is None
    for network in ("proxy", "10.0.0.0/33", "", "10.0"):
        assert rules.networks((network,)), network


def test_modes() -> None:
    for good in (("none",), ("jwt",), ("api_key", "jwt")):
        assert rules.modes(good) is None
    for bad in ((), ("none", "jwt")):
        assert rules.modes(bad)


def test_hashes_of_keys() -> None:
    assert rules.sha256_hex("0123456789abcdef" * 4) is None
    for bad in ("", "0" * 63, "G" * 64, "A" * 64, "0" * 64 + "\n"):
        assert rules.sha256_hex(bad), bad


def test_hosts_and_files() -> None:
    assert rules.not_blank("localhost") is None
    assert all(map(rules.not_blank, ["", " ", "a b", "a\n"]))
    assert rules.not_a_folder("/tmp/some.log") is None
    assert rules.not_a_folder("/tmp")
    assert rules.not_a_folder("")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert rules.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.evil.com"])
def test_not_loopback(host: str) -> None:
    assert not rules.is_loopback(host)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("server: {port: x}", "must be a whole number from 0 to 65535, not 'x'"),
        ("server: {port: 80.5}", "must be a whole number from 0 to 65535, not 80.5"),
        ("server: {port: true}", "must be a whole number from 0 to 65535, not true"),
        ("server: {port: }", "must be a whole number from 0 to 65535, not nothing"),
        ("server: {port: [1]}", "must be a whole number from 0 to 65535, not a list"),
        ("server: {host: 127}", "must be text, not 127"),
        ("redis: {socket_timeout: 0}", "must be a number of seconds above 0, at most 60, not 0"),
        ("sessions: {ttl: .inf}", "must be a number of seconds, at least 1, not inf"),
        ("sessions: {ttl: .nan}", "must be a number of seconds, at least 1, not nan"),
        (
            "sessions: {max_events: 99999999999999999999999999}",
            "must be a whole number, at least 1, not a number that large",
        ),
        (
            "sessions: {max_events: 2147483648}",
            "must be a whole number, at least 1, not 2147483648",
        ),
        ("logging: {format: xml}", "must be one of json, console, not 'xml'"),
        (
            "agents: {a: {timeout: fast}}",
            "must be a number of seconds from 1 to 43200, or null, not 'fast'",
        ),
        ("websocket: {compression: 1}", "must be true or false, not 1"),
    ],
)
def test_a_mistake_says_what_is_allowed(text: str, allowed: str) -> None:
    (mistake,) = mistakes_of(text)
    assert mistake.endswith(f": {allowed}")


@pytest.mark.parametrize(
    "url",
    [
        "https://id.example/keys",
        "https://id.example:8443/realms/a/certs?x=1",
        "http://localhost:8000/keys",
        "http://127.0.0.1/keys",
        "http://[::1]:80/keys",
    ],
)
def test_addresses_of_key_sets(url: str) -> None:
    assert rules.jwks_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "id.example/keys",
        "http://id.example/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost@id.example/keys",
        "http://169.254.169.254/",
        "http://0.0.0.0/keys",
        "https://",
        "https:///keys",
        "https://host:0/keys",
        "https://host:canary/keys",
        "https://user:canary@host/keys",
        "https://host/keys#canary",
        "https://host/a b",
        "https://höst/keys",
        "https://[::1/keys",
        "file:///etc/canary",
        "ftp://host/canary",
    ],
)
def test_an_address_of_keys_that_somebody_on_the_way_could_answer_for_is_refused(url: str) -> None:
    complaint = rules.jwks_url(url)
    assert complaint
    assert "must be a URL: https://HOST/PATH" in complaint
    assert "canary" not in complaint


def test_a_star_stands_for_all_where_one_is_allowed() -> None:
    assert rules.outside_id_or_all("*") is rules.outside_id_or_all("acme") is None
    assert rules.outside_id_or_all("**")


def test_what_must_not_be_empty() -> None:
    assert rules.not_empty("a") is rules.not_none_of_them(("a",)) is None
    assert rules.not_empty("")
    assert rules.not_none_of_them(())
