"""A few seconds of the whole bench: everything starts, fails, heals, is checked, and ends."""

from pathlib import Path

import orjson
import pytest

from benchmarks import chaos


@pytest.mark.alone
def test_a_short_run_is_clean_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, records = tmp_path / "result.json", tmp_path / "records"
    options = ["--minutes", "0.1", "--sessions", "6", "--seed", "2", "--rate", "0.5"]
    status = chaos.main([*options, "--json", str(result), "--keep", str(records)])
    told = capsys.readouterr().out
    assert status == 0, told
    assert told.endswith("passed\n")
    found = orjson.loads(result.read_bytes())
    assert found["totals"]["accepted"] > 0
    assert sum(found["run"]["faults"].values()) > 0
    assert list(records.glob("client-*.jsonl"))


def test_a_folder_with_something_in_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "something").touch()
    assert chaos.main(["--keep", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
