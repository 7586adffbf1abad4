"""The reference page is written from the code, and is itself a configuration."""

import runpy

import pytest

from config.reference import reference
from config.settings import Settings, load
from tests.config.test_sections import all_slots
from tests.support.processes import PROJECT

PAGE = PROJECT / "config/reference.yaml"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text() == reference(), (
        "write it anew: python -m config.reference > config/reference.yaml"
    )


def test_the_page_is_a_configuration_with_every_default() -> None:
    assert load(PAGE, {}) == Settings()


def test_every_setting_and_every_flat_variable_stands_on_the_page() -> None:
    page = PAGE.read_text()
    missing = [slot.name for slot in all_slots() if f"{slot.name}:" not in page]
    assert missing == []
    for slot in all_slots():
        assert slot.rule.variable in page


def test_what_is_refused_as_yet_says_so() -> None:
    page = PAGE.read_text()
    assert "until then all else is refused.\n  processes: 1" in page


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PROJECT / "config/reference.py"), run_name="__main__")
    assert capsys.readouterr().out == reference()
