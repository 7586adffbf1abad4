"""The page about security is true: every row is there, and has tests that exist, or a reason."""

import re

from tests.faults.test_matrix import PROJECT, names_in, rows

PAGE = PROJECT / "docs" / "security.md"
ROW = re.compile(r"\| (S\d+) \| (.+?) \| (.+) \|")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
NO_TEST = re.compile(r"no test\b[^:]*: \S")


def security_rows() -> dict[str, str]:
    """What is said of each row, by its number."""
    found = ROW.findall(PAGE.read_text())
    numbers = [number for number, _, _ in found]
    assert len(numbers) == len(set(numbers)), "a row stands there twice"
    return {number: said for number, _, said in found}


def test_every_row_is_there_in_order() -> None:
    assert list(security_rows()) == [f"S{number}" for number in range(1, 24)]


def test_every_row_has_a_test_or_a_reason() -> None:
    for number, said in security_rows().items():
        assert TEST.search(said) or NO_TEST.search(said), f"{number} has neither"


def test_every_test_that_the_page_names_exists() -> None:
    named = TEST.findall(PAGE.read_text())
    assert len(named) > 80
    for path, name in named:
        assert name in names_in(PROJECT / path), f"there is no {path}::{name}"


def test_bad_input_is_all_there_and_has_its_tests_in_the_matrix() -> None:
    told = re.findall(r"^\| ((?:B\d+(?:, )?)+) \|", PAGE.read_text(), re.MULTILINE)
    numbers = sorted(int(each) for line in told for each in re.findall(r"B(\d+)", line))
    assert numbers == list(range(1, 18))
    assert {f"B{number}" for number in numbers} <= rows().keys()


def test_the_users_of_redis_are_those_that_the_page_shows() -> None:
    page = PAGE.read_text()
    users = (PROJECT / "config" / "redis" / "users.conf").read_text()
    for word in ("ORCHESTRATOR_PASSWORD_SHA256", "WORKER_PASSWORD_SHA256"):
        assert word in page
        assert word in users
