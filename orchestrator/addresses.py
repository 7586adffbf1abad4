"""Whose connection it is, as far as limits of addresses go: the client's address, never a claim.

`X-Forwarded-For` is believed only where it comes from one of `server.trusted_proxies`, and of it
only what these have written: whatever a client puts into the header itself stands further left.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence

from tornado.httputil import HTTPHeaders

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

HEADER = "X-Forwarded-For"
WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?|([^:\[\]]+):[0-9]{1,5}")
SITE = 64  # bits of an IPv6 address that are its owner's network; the rest is the owner's to choose


class Addresses:
    """Tells the clients of requests apart, given the proxies before this server."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._proxies = [ipaddress.ip_network(each, strict=False) for each in trusted_proxies]

    def of(self, peer: str, headers: HTTPHeaders) -> str | None:
        """What the client's connections are counted by: its address, of IPv6 the /64.

        None counts nothing: the peer is on this machine and no trusted proxy.
        """
        address = _parse(peer)
        if address is None:
            return None
        if self._is_proxy(address):
            return _name(self._forwarded_for(headers.get_list(HEADER)) or address)
        return None if address.is_loopback else _name(address)

    def _forwarded_for(self, headers: Iterable[str]) -> IpAddress | None:
        """The right-most entry that is no proxy of ours; None where there is none to be trusted."""
        for entry in reversed(",".join(headers).split(",")):
            address = _parse(_without_port(entry.strip()))
            if address is None or not self._is_proxy(address):
                return address
        return None

    def _is_proxy(self, address: IpAddress) -> bool:
        return any(address in network for network in self._proxies)


def _without_port(entry: str) -> str:
    """`192.0.2.1:80` and `[2001:db8::1]:80` as proxies write them, less the port and brackets."""
    with_port = WITH_PORT.fullmatch(entry)
    return (with_port[1] or with_port[2]) if with_port else entry


def _parse(text: str) -> IpAddress | None:
    """None where it is no address; one of IPv4 that came over an IPv6 socket is one of IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _name(address: IpAddress) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address), SITE), strict=False))
