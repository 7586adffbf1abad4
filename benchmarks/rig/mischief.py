"""What the bench's executor does wrong: the order of its callbacks, and rubbish beside them."""

import random
from collections.abc import Iterator, Sequence

from benchmarks.rig.attempt import Action, Callback, Step

WINDOW = 4  # callbacks that may change places


def mangled(
    steps: Sequence[Step], dice: random.Random, mischief: float
) -> Iterator[tuple[list[Callback], float]]:
    """The steps in groups to send and pauses; some groups are shuffled, none is left out."""
    at = 0
    while at < len(steps):
        count = dice.randint(2, WINDOW) if dice.random() < mischief else 1
        group = steps[at : at + count]
        callbacks = [step.callback for step in group]
        if count > 1:
            dice.shuffle(callbacks)
        yield callbacks, sum(step.pause for step in group)
        at += count


def rubbish(
    action: Action, bad_id: str, dice: random.Random
) -> tuple[str, list[str | bytes], str | None]:
    """Its kind, its fields, and the reason with which it has to be found among the dead letters.

    The reason is None for what is only dropped and counted.
    """
    data = f'{{"text":"{bad_id}"}}'
    mine = ["tenant_id", action.tenant, "session_id", action.session]
    strangers = ["tenant_id", "somebody", "session_id", "else"]
    right = ["attempt", "1", "seq", "1", "type", "delta"]
    choices: dict[str, tuple[list[str | bytes], str | None]] = {
        "unknown task": (["task_id", bad_id, *mine, *right, "data", data], None),
        "another's task": (["task_id", action.task, *strangers, *right, "data", data], "mismatch"),
        "no field of ours": (["rubbish", bad_id], "unreadable"),
        "seq zero": (
            ["task_id", action.task, *mine, "attempt", "1", "seq", "0", *right[4:], "data", data],
            "unreadable",
        ),
        "attempt beyond all": (
            ["task_id", action.task, *mine, "attempt", "99", "seq", "1", *right[4:], "data", data],
            "unreadable",
        ),
    }
    kind = dice.choice(list(choices))
    fields, reason = choices[kind]
    return kind, fields, reason
