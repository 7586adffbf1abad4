"""What an agent may yield, and what becomes of it."""

import orjson
import pytest

from execution.outputs import (
    Delta,
    Event,
    Failed,
    InvalidOutput,
    Progress,
    Result,
    Retryable,
    Usage,
    callback_of,
    failed,
)


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan"), float("inf")])
def test_progress_is_a_percentage(percent: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        Progress(percent)


def test_the_text_of_a_delta_and_the_name_of_an_event_cannot_be_overridden() -> None:
    assert orjson.loads(callback_of(Delta("a", text="b"))[1]) == {"text": "a"}
    assert orjson.loads(callback_of(Event("a", name="b"))[1]) == {"name": "a"}


def test_an_output_too_deep_to_be_read_by_the_orchestrator_is_refused_here() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(InvalidOutput, match="deep"):
        callback_of(Event("deep", data=deep))


def test_an_error_without_a_message_is_told_by_its_name_and_a_long_one_is_cut() -> None:
    assert orjson.loads(failed(KeyError())) == {
        "error": {"type": "KeyError", "message": "KeyError"}
    }
    assert len(orjson.loads(failed(Failed("x" * 9000)))["error"]["message"]) == 2000


def test_only_a_retryable_error_says_so() -> None:
    assert "retryable" not in orjson.loads(failed(Failed("no")))
    assert orjson.loads(failed(Retryable("later")))["retryable"] is True


def test_a_cost_is_told_only_where_it_is_known() -> None:
    told = orjson.loads(Result(usage=Usage(1, 2)).completed(0.12345, "a"))
    assert told["usage"] == {"input_tokens": 1, "output_tokens": 2}
    assert told["execution_time"] == 0.123
