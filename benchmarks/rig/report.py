"""One bench's result, as a table for people and as JSON for programs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmarks.rig.checker import Totals
from benchmarks.rig.findings import KINDS, Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was run, and how it went while it ran."""

    command: str
    seed: int
    control: str | None
    redis: str
    sessions: int
    tabs: int
    tenants: int
    seconds: float  # of faults
    faults: Mapping[str, int]
    caught_up_seconds: float | None  # after the last fault; None: not within the drain
    drained_seconds: float | None
    not_run: str


def table(run: Run, totals: Totals, findings: Findings) -> str:
    """All of it in some thirty lines; what was found comes last, each kind with examples."""
    lines = [*_about(run, totals), *_faults(run), *_totals(totals), *_after(run)]
    return "\n".join([*lines, *_verdict(findings)])


def as_json(run: Run, totals: Totals, findings: Findings) -> dict[str, Any]:
    counted = {each.name: getattr(totals, each.name) for each in fields(totals)}
    counted["latency_ms"] = _percentiles(counted.pop("latencies"))
    return {
        "run": asdict(run),
        "totals": counted,
        "findings": {kind: findings[kind] for kind in KINDS},
        "examples": findings.examples,
        "passed": findings.is_clean,
    }


def _about(run: Run, totals: Totals) -> list[str]:
    latency = _percentiles(totals.latencies)
    per_second = max(run.seconds, 1.0)
    load = f"{run.sessions} sessions of {run.tenants} tenants, {run.tabs} connections at once"
    rates = f"{totals.accepted / per_second:.1f} messages/s"
    rates += f", {totals.callbacks / per_second:.0f} callbacks/s"
    reached = f"p50 {latency['p50']} ms, p99 {latency['p99']} ms, most {latency['most']} ms"
    return [
        _row("command", run.command),
        _row("redis", run.redis),
        *([_row("switched off", run.control)] if run.control else []),
        _row("load held", load),
        _row("", f"{rates}; executor to client {reached}"),
    ]


def _faults(run: Run) -> list[str]:
    kinds = sorted(run.faults.items(), key=lambda each: (-each[1], each[0]))
    lines = [_row("faults", f"{sum(run.faults.values())} of {len(kinds)} kinds")]
    for at in range(0, len(kinds), 3):
        lines.append(_row("", "".join(f"{n:>3} {kind:<27}" for kind, n in kinds[at : at + 3])))
    return lines


def _totals(totals: Totals) -> list[str]:
    ends = ", ".join(f"{count} {status}" for status, count in sorted(totals.ends.items()))
    unanswered = f"{totals.indeterminate} messages were never answered with 202"
    return [
        _row("bad inputs tried", f"{totals.bad_inputs}, and {totals.letters} dead letters"),
        _row("accepted", str(totals.accepted)),
        _row("terminal", f"{totals.ends.total()} ({ends})"),
        _row("", f"{unanswered}, of these {totals.indeterminate_ended} ran and ended"),
        _row("events", f"{totals.events}, told over {totals.connections} connections"),
        _row(
            "longest outage",
            f"{totals.longest_outage / 1000:.1f} s without a connection, "
            f"{totals.longest_send / 1000:.1f} s until a message was accepted, "
            f"{totals.slowest_refusal / 1000:.1f} s until a 503",
        ),
    ]


def _verdict(findings: Findings) -> list[str]:
    lines = [_row(kind.replace("_", "-"), str(findings[kind])) for kind in KINDS]
    for kind, examples in findings.examples.items():
        lines += ["", f"{kind}: {KINDS[kind]}", *(f"  {each[:400]}" for each in examples)]
    lines += ["", "passed" if findings.is_clean else "FAILED"]
    return lines


def _after(run: Run) -> list[str]:
    """How it came to rest, and what was not tried."""

    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.1f} s"

    caught_up = f"all caught up after {seconds(run.caught_up_seconds)}"
    return [
        _row("after the faults", f"{caught_up}, all ended after {seconds(run.drained_seconds)}"),
        _row("not run", run.not_run),
    ]


def _row(name: str, value: str) -> str:
    return f"{name:<18}{value}".rstrip()


def _percentiles(values: list[int]) -> dict[str, int]:
    ordered = sorted(values) or [0]
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "most": ordered[-1],
    }
