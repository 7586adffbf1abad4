"""Credentials are hidden wherever they stand; what is no credential is left alone."""

import pytest

from common.log_values import bounded, indented, visible, visible_json, without_secrets

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.canary-signature_0"  # noqa: S105


@pytest.mark.parametrize(
    "text",
    [
        "redis://user:canary@host:6379/0",
        "Error connecting to rediss://:can%40ary@host",
        "GET /ws/acme/s?user_id=u&token=canary&offset=0 HTTP/1.1",
        "?password=canary",
        "Authorization: Bearer canary",
        "{'Authorization': 'Bearer canary', 'Host': 'h'}",
        "[('Sec-Websocket-Protocol', 'bearer, canary')]",
        "X-Api-Key: canary",
        "{'X-Api-Key': 'canary'}",
        TOKEN,
        f"invalid token '{TOKEN}'",
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str) -> None:
    for event in ({"event": text}, {"error": text}, {"x": [{"y": text}]}, {"e": ValueError(text)}):
        assert "***" in str(bounded(event))
        assert "canary" not in str(bounded(event))
    assert "canary" not in without_secrets(f"{text}\n" * 10_000)


@pytest.mark.parametrize(
    "text",
    [
        "Error 111 connecting to 127.0.0.1:6379. Connection refused.",
        "https://example.com/a@b",
        "the token is 30 s too old",
        "tokens_per_day=5000",
        "bearer",
        "a bearer",
    ],
)
def test_other_words_are_left_alone(text: str) -> None:
    assert without_secrets(text) == text


def test_a_traceback_is_cut_at_its_beginning_and_other_text_at_its_end() -> None:
    long = "first" + "." * 100_000 + "last"
    event = bounded({"exception": long, "error": long})
    assert event["exception"].startswith("(100009 characters) …")
    assert event["exception"].endswith("last")
    assert event["error"].startswith("first")
    assert len(event["exception"]) < 8300


@pytest.mark.parametrize("name", ["exception", "traceback", "stack"])
def test_what_stands_for_a_traceback_and_is_none_is_cut_like_any_value(name: str) -> None:
    assert bounded({name: None}) == {name: None}
    value = bounded({name: ["first" + "." * 100_000]})[name]
    assert value[0].startswith("first")
    assert len(value[0]) < 1100


def test_what_cannot_be_seen_is_written_as_its_code() -> None:
    assert visible("a\nb\x1b\u2028\u202e") == "a\\nb\\x1b\\u2028\\u202e"
    assert visible("Grüße, 世界 🌍") == "Grüße, 世界 🌍"
    assert visible_json('{"a":"\u2028\x7f"}') == '{"a":"\\u2028\\u007f"}'
    assert indented("a\n\x1bb") == "    a\n    \\x1bb"
