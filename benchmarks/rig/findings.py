"""What a checker finds: counted by kind, the first of each kept to be looked at."""

from collections import Counter
from dataclasses import dataclass, field

EXAMPLES = 10  # kept of each kind

# What each kind means, in the order of the table. Any of them fails a bench.
KINDS = {
    "lost": "events, callbacks or accepted messages that somebody never saw",
    "duplicated": "the same told twice: an event, a message of one key, an end",
    "reordered": "out of order",
    "cross_tenant": "seen or changed by somebody whose it is not",
    "stale": "of an attempt that a newer one has replaced",
    "altered": "not as it was sent, or not what was promised of it",
    "conflicting": "two different events with one offset",
    "after_end": "told of a task after its end",
    "unrecovered": "a resume that was not possible, though nothing was lost on purpose",
    "unended": "accepted tasks without an end",
    "pending": "left in Redis after the drain",
    "late": "not caught up in time after the last fault",
    "unhandled": "answers 500, answers nobody expects, errors in logs",
}


@dataclass(slots=True)
class Findings:
    """Zero of everything is a pass."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        assert kind in KINDS
        self.counts[kind] += count
        kept = self.examples.setdefault(kind, [])
        if len(kept) < EXAMPLES:
            kept.append(example)

    def __getitem__(self, kind: str) -> int:
        return self.counts[kind]

    @property
    def is_clean(self) -> bool:
        return not self.counts.total()
