"""A result is a table for people and JSON for programs, and says what failed."""

from collections import Counter

import orjson
import pytest

from benchmarks import chaos
from benchmarks.rig.checker import Totals
from benchmarks.rig.findings import KINDS, Findings
from benchmarks.rig.report import Run, as_json, table

RUN = Run(
    command="python -m benchmarks.chaos",
    seed=1,
    control=None,
    redis="7.0.15",
    sessions=2,
    tabs=3,
    tenants=1,
    seconds=60.0,
    faults={"kill redis": 2, "cut": 1},
    caught_up_seconds=0.5,
    drained_seconds=None,
    not_run="power loss",
)


def test_the_table_says_what_the_bench_is_asked_for() -> None:
    totals = Totals(accepted=5, ends=Counter(completed=4, failed=1), latencies=[1, 2, 300])
    text = table(RUN, totals, Findings())
    for word in ("load held", "bad inputs tried", "accepted", "terminal", "longest outage"):
        assert word in text
    assert "3 of 2 kinds" in text
    assert "5 (4 completed, 1 failed)" in text
    assert "p50 2 ms" in text
    assert "all ended after never" in text
    for kind in ("lost", "duplicated", "reordered", "cross-tenant", "stale", "pending"):
        assert f"\n{kind}" in text
    assert text.endswith("passed")


def test_a_finding_fails_and_is_shown() -> None:
    findings = Findings()
    findings.add("lost", "event 7 of t/s", 3)
    text = table(RUN, Totals(), findings)
    assert "event 7 of t/s" in text
    assert text.endswith("FAILED")


def test_only_the_first_of_many_findings_are_kept() -> None:
    findings = Findings()
    for number in range(100):
        findings.add("stale", str(number))
    assert findings["stale"] == 100
    assert len(findings.examples["stale"]) == 10


def test_the_json_has_every_kind() -> None:
    totals = Totals(latencies=[7], ends=Counter(completed=4))
    result = orjson.loads(orjson.dumps(as_json(RUN, totals, Findings())))
    assert result["findings"].keys() == KINDS.keys()
    assert result["passed"] is True
    assert result["totals"]["ends"] == {"completed": 4}
    assert result["totals"]["latency_ms"] == {"p50": 7, "p99": 7, "most": 7}


def test_wrong_options_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        chaos.main(["--control", "everything"])
    assert raised.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
