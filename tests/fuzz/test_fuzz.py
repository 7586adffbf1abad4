"""A short run of the fuzzer finds nothing, and what it looks for it would find."""

from pathlib import Path

from benchmarks.fuzz import Bench, complaints
from benchmarks.rig.frame_inputs import FrameInputs
from benchmarks.rig.fuzzer import dice_of
from benchmarks.rig.mutations import Mutator
from benchmarks.rig.rest_inputs import RestInputs
from tests.fuzz.test_rest import DOCUMENT

INPUTS = 3000


async def test_three_thousand_inputs_break_nothing(tmp_path: Path) -> None:
    bench = Bench(INPUTS, 2026, tmp_path)
    await bench.run()
    assert bench.findings() == [], bench.table()
    assert bench.thrown >= INPUTS
    assert bench.bystander.pongs > 5
    assert bench.bystander.answers > 0
    makers = 7 + 5 + 3 + 1  # of frames and of requests
    assert len(bench.judged.tried) == makers


def test_a_seed_says_it_all() -> None:
    def thrown(seed: int) -> list[bytes]:
        mutator = Mutator(dice_of(seed, 1))
        rest = RestInputs(mutator, DOCUMENT)
        return [
            make().data for make in (*rest.spoken.values(), *rest.broken.values()) for _ in "12345"
        ]

    assert thrown(1) == thrown(1)
    assert thrown(1) != thrown(2)


def test_every_kind_of_frame_can_be_made() -> None:
    mutator = Mutator(dice_of(1, 1))
    frames = FrameInputs(mutator, {}, 1000)
    for make in (*frames.spoken.values(), *frames.broken.values()):
        assert all(make() for _ in range(50))


def test_a_line_that_tells_of_a_mistake_is_a_complaint(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"level":"info","event":"x"}\n{"level":"error","event":"y"}\nTraceback\n')
    assert len(complaints(log)) == 2
