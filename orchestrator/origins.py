"""Which pages may connect: the check of `Origin` (contract, section 7).

A page's origin is compared as browsers do: scheme, host and port, all three and exactly. What is no
origin of http or https (`null`, a file, an app) is nobody's, and let in only where all are.
"""

import re
from collections.abc import Collection

ANY = "*"
ORIGIN = re.compile(r"(https?)://([^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
DEFAULT_PORTS = {"http": "80", "https": "443"}


def may_connect(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether a page of that origin may; `host` is what the request calls this service.

    Without a list it has to be the same origin. Whether a proxy before us speaks TLS we cannot
    know, so the page's own scheme is taken to be ours too.
    """
    if ANY in allowed:
        return True
    page = _parts(origin)
    if page is None:
        return False
    if allowed:
        return page in map(_parts, allowed)
    return page == _parts(f"{page[0]}://{host}")


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is no origin."""
    matched = ORIGIN.fullmatch(origin.lower())
    if matched is None:
        return None
    scheme, host, port = matched.groups()
    return scheme, host, int(port or DEFAULT_PORTS[scheme])
