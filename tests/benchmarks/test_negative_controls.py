"""The checker can fail: each safeguard that is switched off does damage, and the damage is found.

Each story is told twice, once with the safeguard, where the checker must find nothing. Only that
makes a chaos bench's zeros worth anything.
"""

from pathlib import Path

import pytest

from benchmarks.rig.findings import Findings
from tests.benchmarks.scripted import Stage, stage

SAFE = None


async def judged_after_an_end(scene: Stage, task: str) -> Findings:
    await scene.until(lambda: scene.log.end_of(task).is_set())
    return await scene.judged()


@pytest.mark.parametrize("switched_off", [SAFE, "dedupe"])
async def test_without_dedupe_what_was_sent_twice_is_duplicated(
    tmp_path: Path, switched_off: str | None
) -> None:
    async with stage(tmp_path, switched_off) as scene:
        action = await scene.task()
        plan = await scene.attempt(action)
        started, delta = (step.callback for step in plan.steps)
        await scene.send(action, started, delta)
        await scene.send(action, delta)
        await scene.handled(action)
        await scene.conclude(action, plan.end[0])
        findings = await judged_after_an_end(scene, action.task)
    assert findings["duplicated"] == (1 if switched_off else 0)
    assert findings.is_clean is (switched_off is None), findings.examples


@pytest.mark.parametrize("switched_off", [SAFE, "gap"])
async def test_without_the_gap_check_what_came_too_early_loses_what_belongs_before_it(
    tmp_path: Path, switched_off: str | None
) -> None:
    async with stage(tmp_path, switched_off) as scene:
        action = await scene.task()
        plan = await scene.attempt(action, deltas=2)
        started, first, second = (step.callback for step in plan.steps)
        await scene.send(action, started, second)
        await scene.handled(action)
        await scene.send(action, first)
        await scene.handled(action)
        await scene.conclude(action, plan.end[0])
        findings = await judged_after_an_end(scene, action.task)
    assert bool(findings["lost"] + findings["reordered"]) is (switched_off is not None)
    assert findings.is_clean is (switched_off is None), findings.examples


@pytest.mark.parametrize("switched_off", [SAFE, "fence"])
async def test_without_the_fence_what_a_dead_attempt_still_sends_is_stale(
    tmp_path: Path, switched_off: str | None
) -> None:
    async with stage(tmp_path, switched_off) as scene:
        action = await scene.task()
        first = await scene.attempt(action, deltas=2, is_whole=False)
        await scene.send(action, *(step.callback for step in first.steps[:2]))
        await scene.handled(action)
        second = await scene.attempt(action)
        await scene.send(action, *(step.callback for step in second.steps))
        await scene.handled(action)
        await scene.send(action, first.steps[2].callback)
        await scene.handled(action)
        await scene.conclude(action, second.end[0])
        if switched_off is None:
            await scene.until(lambda: scene.log.end_of(action.task).is_set())
        findings = await scene.judged()
    assert findings["stale"] == (1 if switched_off else 0)
    assert findings.is_clean is (switched_off is None), findings.examples


@pytest.mark.parametrize("switched_off", [SAFE, "ack"])
async def test_with_acks_before_the_work_a_crash_between_them_loses_what_was_acked(
    tmp_path: Path, switched_off: str | None
) -> None:
    async with stage(tmp_path, switched_off) as scene:
        action = await scene.task()
        plan = await scene.attempt(action)
        scene.instance.redis_edge.trip(b"XACK")  # it passes, its answer does not
        await scene.send(action, *(step.callback for step in plan.steps))
        await scene.instance.redis_edge.tripped.wait()
        await scene.handled(action)
        await scene.instance.process.kill()
        scene.instance.redis_edge.cut()
        await scene.instance.redis_edge.heal()
        scene.instance.process.start()
        await scene.topology.ready(scene.instance)
        await scene.conclude(action, plan.end[0])
        await scene.handled(action)
        if switched_off is None:
            await scene.until(lambda: scene.log.end_of(action.task).is_set())
        findings = await scene.judged()
    assert bool(findings["lost"]) is (switched_off is not None)
    assert findings.is_clean is (switched_off is None), findings.examples
