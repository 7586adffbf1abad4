"""Whose connection it is: the peer's, or what trusted proxies say, never what a client claims."""

from collections.abc import Sequence

import pytest
from tornado.httputil import HTTPHeaders

from orchestrator.addresses import Addresses

PROXIES = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]


def address(peer: str, *forwarded: str, proxies: Sequence[str] = PROXIES) -> str | None:
    headers = HTTPHeaders()
    for each in forwarded:
        headers.add("X-Forwarded-For", each)
    return Addresses(proxies).of(peer, headers)


@pytest.mark.parametrize("claimed", ["203.0.113.9", "127.0.0.1", "10.0.0.1", "garbage", ""])
def test_what_a_client_claims_is_nothing_where_it_is_no_trusted_proxy(claimed: str) -> None:
    assert address("198.51.100.1", claimed) == "198.51.100.1"
    assert address("198.51.100.1", claimed, proxies=[]) == "198.51.100.1"
    assert address("127.0.0.1", claimed) is None


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["203.0.113.9 ,10.1.1.1,192.0.2.7"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the client wrote the first itself
        (["10.9.9.9, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # two headers are one list
        (["garbage, 203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:54321"], "203.0.113.9"),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2:3:4:5:6]"], "2001:db8:1:2::/64"),
        (["[2001:db8:1:2:3:4:5:6]:443"], "2001:db8:1:2::/64"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, fd00::1"], "203.0.113.9"),
        (["127.0.0.1"], "127.0.0.1"),  # not exempt: it is only said
    ],
)
def test_of_a_trusted_proxy_the_right_most_untrusted_entry_counts(
    forwarded: list[str], client: str
) -> None:
    assert address("10.0.0.1", *forwarded) == client


@pytest.mark.parametrize(
    "forwarded",
    [
        *([], [""], [","], ["unknown"], ["_hidden"], ["203.0.113.9, garbage"], ["203.0.113.9,"]),
        *(["203.0.113.9%eth0"], ["203.0.113"], ["256.1.1.1"], ["1.2.3.4:5:6"], ["[::1"], ["[]"]),
        *(["203.0.113.9:x"], ["[203.0.113.9]x"], ["203.0.113.0/24"]),
        *(["10.1.1.1"], ["10.1.1.1, 10.2.2.2"], ["x" * 10_000], ["," * 10_000]),
    ],
    ids=lambda forwarded: ",".join(forwarded)[:20],
)
def test_where_the_entry_cannot_be_read_the_proxy_itself_counts(forwarded: list[str]) -> None:
    assert address("10.0.0.1", *forwarded) == "10.0.0.1"


def test_a_peer_by_ipv6_is_its_network_and_one_by_mapped_ipv4_is_that() -> None:
    assert address("2001:db8::1") == address("2001:db8::ffff") == "2001:db8::/64"
    assert address("2001:db8:0:1::1") != address("2001:db8::1")
    assert address("::ffff:198.51.100.1") == "198.51.100.1"
    assert address("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert address("fe80::1%eth0") == "fe80::/64"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_exempt_unless_it_is_a_trusted_proxy(peer: str) -> None:
    assert address(peer) is None
    trusted = ["127.0.0.0/8", "::1"]
    assert address(peer, "203.0.113.9", proxies=trusted) == "203.0.113.9"
    assert address(peer, proxies=trusted) in ("127.0.0.1", "127.1.2.3", "::/64")


def test_a_peer_that_has_no_address_is_not_counted() -> None:
    assert address("") is None
