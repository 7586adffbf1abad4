"""What is said of parameters is what their readers check."""

import re

import pytest

from common.queues.dead_letters import ENTRY_ID, LetterQueue
from orchestrator.api_docs import parameters
from orchestrator.app import REQUEST_ID
from orchestrator.http.pages import NAME
from orchestrator.http.sessions import MAX_LIMIT
from orchestrator.schemas import KEY

TEXTS = ["", "a", "1-0", "main.js", "a b", "~", "é", "a" * 64, "a" * 65, "a" * 128, "a" * 129, "1-"]


@pytest.mark.parametrize(
    ("parameter", "pattern"),
    [
        (parameters.IDEMPOTENCY_KEY, KEY),
        (parameters.FILE, NAME),
        (parameters.LETTER, ENTRY_ID),
    ],
    ids=["key", "file", "letter"],
)
def test_a_pattern_takes_what_the_handler_takes(
    parameter: dict[str, dict[str, str]], pattern: re.Pattern[str]
) -> None:
    for text in TEXTS:
        fits = re.search(parameter["schema"]["pattern"], text) is not None
        assert fits is (pattern.fullmatch(text) is not None), text


def test_queues_and_limits_are_those_there_are() -> None:
    assert set(parameters.QUEUE["schema"]["enum"]) == set(LetterQueue)
    assert parameters.limit()["schema"]["maximum"] == MAX_LIMIT


def test_a_request_id_is_any_text_and_kept_if_it_fits() -> None:
    assert parameters.REQUEST_ID["schema"] == {"type": "string"}
    assert f"`{REQUEST_ID.pattern}`" in parameters.REQUEST_ID["description"]
