"""How mistakes are collected and worded."""

import pytest

from config.mistakes import Mistakes, shown


def test_a_mistake_names_where_the_nearest_given_setting_came_from() -> None:
    mistakes = Mistakes()
    mistakes.origins[("server",)] = "file:1"
    mistakes.origins[("server", "port")] = "PORT"
    mistakes.add(("server", "port"), "is wrong")
    mistakes.add(("server", "host"), "is wrong")
    mistakes.add(("redis", "url"), "is wrong")
    assert mistakes.lines == [
        "PORT: server.port: is wrong",
        "file:1: server.host: is wrong",
        "redis.url: is wrong",
    ]


def test_a_setting_is_concerned_by_mistakes_within_it() -> None:
    mistakes = Mistakes()
    mistakes.add(("agents", "a", "timeout"), "is wrong")
    assert mistakes.concern(("agents",))
    assert mistakes.concern(("agents", "a", "timeout"))
    assert not mistakes.concern(("agents", "b"))
    assert not mistakes.concern(("server",))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ("a", "'a'"),
        ("x" * 100, f"'{'x' * 57}...'"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        ([1], "a list"),
        ({}, "a mapping"),
        (b"a", "a bytes"),
    ],
)
def test_values_are_shown_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_number_of_any_size_can_be_shown() -> None:
    assert shown(10**5000) == shown(-(10**5000)) == "a number that large"


def test_a_secret_is_not_shown() -> None:
    assert shown("canary", secret=True) == "what was given"
