"""What a tab got goes on, across connections, where it ended: or that is found."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.rig.findings import Findings
from benchmarks.rig.records import read_journal
from benchmarks.rig.tab_check import TabCheck
from benchmarks.rig.task_check import Sent
from tests.benchmarks.recorded import (
    SESSION,
    TENANT,
    ClientRecord,
    delta,
    frame,
    good_story,
    mark,
)


def check(folder: Path, *connections: Iterable[dict[str, Any]], **ack: Any) -> Findings:
    """A tab that resumes on each further connection with what it had."""
    record, findings = ClientRecord(folder), Findings()
    position = 0
    for number, frames in enumerate(connections):
        record.connects(["e" if number else None, position], connection=number, **ack)
        shown = list(frames)
        record.sees(shown, connection=number)
        position = shown[-1].get("offset", 0) if shown else position
    tab = TabCheck("tab", (TENANT, SESSION), Sent(), findings)
    for line in read_journal(folder / f"client-{TENANT}--{SESSION}.jsonl"):
        tab.line(line)
    return findings


def test_a_whole_story_over_two_connections_is_clean(tmp_path: Path) -> None:
    story = good_story()
    assert check(tmp_path, story[:3], story[3:]).is_clean


def test_joined_frames_fill_the_place_of_what_they_join(tmp_path: Path) -> None:
    story = good_story()
    text = "".join(mark(number) for number in (1, 2, 3))
    joined = frame(5, "agent_delta", {"text": text}, from_offset=3)
    assert check(tmp_path, [*story[:2], joined, story[5]]).is_clean


def test_a_hole_is_lost(tmp_path: Path) -> None:
    story = good_story()
    findings = check(tmp_path, [*story[:2], *story[4:]])
    assert findings.counts == {"lost": 2}


def test_an_event_that_comes_again_after_a_resume_is_duplicated(tmp_path: Path) -> None:
    story = good_story()
    assert check(tmp_path, story[:3], story[2:]).counts == {"duplicated": 1}


def test_an_event_that_fills_a_hole_too_late_is_reordered(tmp_path: Path) -> None:
    story = good_story()
    story[2], story[3] = story[3], story[2]
    assert check(tmp_path, story).counts == {"lost": 1, "reordered": 1}


def test_one_offset_with_two_meanings_is_conflicting(tmp_path: Path) -> None:
    assert check(tmp_path, [delta(1, 1), delta(1, 2)]).counts == {"duplicated": 1, "conflicting": 1}


def test_a_frame_of_another_session_is_cross_tenant(tmp_path: Path) -> None:
    assert check(tmp_path, [{**delta(1, 1), "tenant_id": "other"}]).counts == {"cross_tenant": 1}


def test_a_resume_that_was_not_possible_is_unrecovered(tmp_path: Path) -> None:
    assert check(tmp_path, good_story(), [], recovered=False)["unrecovered"] == 2


def test_a_new_epoch_is_never_a_recovery(tmp_path: Path) -> None:
    assert check(tmp_path, [delta(1, 1)], [delta(2, 2)], epoch="new").counts == {"altered": 1}


def test_the_first_word_of_a_connection_is_its_ack(tmp_path: Path) -> None:
    findings = Findings()
    tab = TabCheck("tab", (TENANT, SESSION), Sent(), findings)
    tab.line({"t": 1, "asked": [None, 0]})
    tab.line({"t": 2, "frame": delta(1, 1)})
    assert findings.counts == {"altered": 1}


def test_an_outage_lasts_from_the_end_of_a_connection_to_the_next_ack() -> None:
    tab = TabCheck("tab", (TENANT, SESSION), Sent(), Findings())
    ack = {
        "type": "connection_ack",
        "tenant_id": TENANT,
        "session_id": SESSION,
        "data": {"epoch": "e", "offset": 0, "recovered": True},
    }
    tab.line({"t": 100, "closed": 1006})
    tab.line({"t": 300, "refused": "OSError"})
    tab.line({"t": 900, "frame": ack})
    assert tab.longest_outage == 800
