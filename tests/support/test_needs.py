"""Folders that are left out say so, and are not left out where all tests are wanted."""

import pytest

from tests.support import needs
from tests.support.needs import left_out

HERE = "tests/somewhere/conftest.py"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("REQUIRE_ALL_TESTS", raising=False)
    monkeypatch.setattr(needs, "NOT_RUN", [])


def test_a_folder_that_has_what_it_needs_is_run() -> None:
    assert left_out(HERE, packages=["pytest"], programs=("no-such-program", "sh")) == []
    assert needs.NOT_RUN == []


def test_a_folder_that_lacks_something_is_left_out_and_said() -> None:
    assert left_out(HERE, packages=["no_such_package"], programs=("no-such-program",)) == ["*"]
    (line,) = needs.NOT_RUN
    assert line.startswith("tests/somewhere was not run: it needs no_such_package, no-such-program")


def test_where_all_tests_are_wanted_a_missing_package_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUIRE_ALL_TESTS", "1")
    assert left_out(HERE, packages=[], programs=("no-such-program",)) == ["*"]
    with pytest.raises(pytest.UsageError, match="it needs no_such_package"):
        left_out(HERE, packages=["no_such_package"])


def test_in_ci_a_missing_program_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.UsageError, match="it needs no-such-program"):
        left_out(HERE, packages=[], programs=("no-such-program",))
