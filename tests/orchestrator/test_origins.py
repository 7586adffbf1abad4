"""Which pages may connect (S8): the scheme, the host and the port, all three and exactly."""

import pytest

from orchestrator.origins import may_connect

HERE = "chat.example.com"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://chat.example.com", HERE),
        ("http://chat.example.com", HERE),  # a proxy before us may or may not speak TLS
        ("https://chat.example.com:443", HERE),
        ("http://chat.example.com:80", HERE),
        ("https://chat.example.com", f"{HERE}:443"),
        ("http://chat.example.com", f"{HERE}:80"),
        ("http://chat.example.com:8001", f"{HERE}:8001"),
        ("HTTPS://Chat.Example.COM", HERE),
        ("https://chat.example.com", "CHAT.example.com"),
        ("http://[::1]:8001", "[::1]:8001"),
        ("http://[::1]", "[::1]"),
    ],
)
def test_a_page_of_the_same_origin_may_connect(origin: str, host: str) -> None:
    assert may_connect(origin, host, ())


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "file://",
        "https://",
        "chat.example.com",
        "//chat.example.com",
        "ftp://chat.example.com",
        "ws://chat.example.com",
        "https://chat.example.com.evil.example",
        "https://evil-chat.example.com",
        "https://evil.example/chat.example.com",
        "https://evil.example#chat.example.com",
        "https://evil.example?chat.example.com",
        "https://chat.example.com@evil.example",
        "https://evil.example@chat.example.com",
        "https://chat.example.com:8443",
        "https://chat.example.com:80",
        "http://chat.example.com:443",
        "https://chat.example.com:",
        "https://chat.example.com:4٤3",
        "https://chat.example.com:443443",
        "https://chat.example.com/",
        "https://chat.example.com.",
        "https://example.com",
        "https://cha\u0442.example.com",
        "https://chat.example.com https://evil.example",
        "https://chat.example.com,https://evil.example",
        "https://chat.example.com\n",
        " https://chat.example.com",
        "http://[::1",
        "http://::1",
    ],
)
def test_no_other_page_may(origin: str) -> None:
    assert not may_connect(origin, HERE, ())
    assert not may_connect(origin, HERE, ("https://chat.example.com",))


@pytest.mark.parametrize("host", ["", ":443", "a b", "chat.example.com/x", "chat.example.com:x"])
def test_a_host_that_is_none_is_the_origin_of_no_page(host: str) -> None:
    assert not may_connect("https://chat.example.com", host, ())


def test_a_list_stands_for_itself() -> None:
    allowed = ("https://Chat.example.com:443", "http://localhost:3000")
    assert may_connect("https://chat.example.com", HERE, allowed)
    assert may_connect("http://LOCALHOST:3000", HERE, allowed)
    assert not may_connect("http://chat.example.com", HERE, allowed)
    assert not may_connect("http://localhost", HERE, allowed)
    assert not may_connect(f"https://{HERE}:8001", f"{HERE}:8001", allowed)


def test_all_are_let_in_only_where_that_is_said() -> None:
    for origin in ("https://evil.example", "null", "file://"):
        assert may_connect(origin, HERE, ("*",))
