"""The nemesis draws every kind of fault, and none on what another has in its hands."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rig.faults import EDGE_FAULTS, GENERAL_FAULTS, PROCESS_FAULTS
from benchmarks.rig.nemesis import Nemesis
from benchmarks.rig.records import read_journal
from benchmarks.rig.topology import Topology


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    """Nothing of it runs; its Redis's folder has to go all the same."""
    made = Topology(tmp_path)
    yield made
    made.redis.__exit__()


def nemesis(topology: Topology, seed: int) -> Nemesis:
    return Nemesis(topology, random.Random(seed), lambda _: None)


async def test_the_same_seed_draws_the_same_faults(topology: Topology) -> None:
    drawn = []
    for _ in range(2):
        each = nemesis(topology, 7)
        drawn.append([each.draw().name for _ in range(50)])  # type: ignore[union-attr]
        await each.close()
    assert drawn[0] == drawn[1]


async def test_every_kind_is_drawn_in_the_end(topology: Topology) -> None:
    each = nemesis(topology, 1)
    kinds = {drawn.name for _ in range(1000) if (drawn := each.draw())}
    await each.close()
    assert kinds == {fault.name for fault in (*PROCESS_FAULTS, *EDGE_FAULTS, *GENERAL_FAULTS)}
    assert len(kinds) >= 20


async def test_what_is_claimed_is_left_alone(topology: Topology) -> None:
    each = nemesis(topology, 1)
    each.claimed |= {"redis", "orchestrator-1"}
    for _ in range(300):
        drawn = each.draw()
        assert drawn is None or not drawn.claims & each.claimed
    await each.close()


async def test_a_fault_is_written_down_when_it_begins_and_when_it_is_healed(
    topology: Topology,
) -> None:
    """No process runs here, so only faults on the ways between them can come to pass."""
    each = nemesis(topology, 1)
    each.claimed |= {"redis", *(member.name for member in topology.members)}
    while (drawn := each.draw()) is None or drawn.name != "cut clients of one":
        pass
    await each.happen(drawn)
    await each.close()
    began, ended = read_journal(topology.folder / "nemesis.jsonl")
    assert began["began"] == ended["ended"] == "cut clients of one"
    assert ended["took"] >= 0
    assert each.done == {"cut clients of one": 1}
