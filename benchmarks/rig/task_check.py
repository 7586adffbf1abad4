"""Checks one task: its log tells what its newest attempt sent, and one end (I1, I2, I8, I9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.rig.events import Event
from benchmarks.rig.findings import Findings
from benchmarks.rig.records import SHORT, Mark, read_journal


@dataclass(slots=True)
class Sent:
    """What the executors wrote down."""

    # By task, attempt and number: when (unix ms) and what.
    payloads: dict[tuple[str, int, int], tuple[int, Mapping[str, Any]]] = field(
        default_factory=dict
    )
    attempts: set[tuple[str, int]] = field(default_factory=set)
    # Attempts whose last callback is in Redis for certain, and how many marks they have.
    concluded: dict[tuple[str, int], int] = field(default_factory=dict)
    callbacks: int = 0
    bad: dict[str, str] = field(default_factory=dict)  # rubbish by its id: the reason to find
    certain: set[str] = field(default_factory=set)  # rubbish of which it is known that it was added

    @classmethod
    def read(cls, journals: Sequence[Path]) -> "Sent":
        sent = cls()
        for journal in journals:
            for line in read_journal(journal):
                sent._note(line)
        return sent

    def _note(self, line: Mapping[str, Any]) -> None:
        if "by" in line:
            self.attempts.add((line["task"], line["attempt"]))
        elif "bad" in line and line["reason"] is not None:
            self.bad[line["bad"]] = line["reason"]
        elif "concluded" in line:
            self.concluded[line["concluded"], line["attempt"]] = line["number"]
        elif "sent" in line:
            self.certain.add(line["sent"])
        elif "seq" in line:
            self.callbacks += 1
            if line["number"]:
                place = (line["task"], line["attempt"], line["number"])
                self.payloads[place] = (line["t"], line["data"])


class TaskCheck:
    """Fed with a task's events in the order of the log."""

    def __init__(self, task: str, session: tuple[str, str], sent: Sent, findings: Findings) -> None:
        self.task = task
        self.status: str | None = None  # with which it ended
        self.key: str | None = None
        self._session = session
        self._sent = sent
        self._findings = findings
        self._attempt = 1
        self._seen: dict[int, list[int]] = {}  # attempt -> the numbers of its marks, as they came
        self._text: list[str] = []

    def event(self, event: Event) -> None:
        if event.type == "user_message":
            self._begin(event)
            return
        if self.key is None:
            self._add("reordered", f"{event.type} before its user_message")
        if self.status is not None:
            kind = "duplicated" if event.status is not None else "after_end"
            self._add(kind, f"{event.type} {event.data} after it was {self.status}")
            return
        if event.resets is not None:
            self._reset(event.resets)
        mark = event.mark
        if mark is not None:
            self._marked(event, mark)
        if event.type == "agent_delta":
            self._text.append(event.data["text"])
        if event.status is not None:
            self._end(event, mark)

    def _begin(self, event: Event) -> None:
        if self.key is not None:
            self._add("duplicated", "two user_messages")
        tenant, session, self.key = event.data["message"].split("|")
        if (tenant, session) != self._session:
            self._add("cross_tenant", f"a message of {tenant}/{session}")

    def _reset(self, attempt: int) -> None:
        if attempt <= self._attempt:
            self._add("stale", f"attempt {attempt} begins after attempt {self._attempt}")
        self._attempt = attempt
        self._text = []

    def _marked(self, event: Event, mark: Mark) -> None:
        if (mark.tenant, mark.session) != self._session or mark.task != self.task:
            self._add("cross_tenant", f"a payload of {mark}")
            return
        if mark.attempt < self._attempt:
            self._add("stale", f"{mark} in attempt {self._attempt}")
            return
        if mark.attempt > self._attempt:
            self._add("altered", f"{mark} though attempt {self._attempt} was not reset")
            self._reset(mark.attempt)
        self._seen.setdefault(mark.attempt, []).append(mark.number)
        self._compare(event, mark)

    def _compare(self, event: Event, mark: Mark) -> None:
        if (self.task, mark.attempt) not in self._sent.attempts:
            return  # of the project's own worker, which keeps no journal
        sent = self._sent.payloads.get((self.task, mark.attempt, mark.number))
        if sent is None:
            self._add("altered", f"{mark} was never sent")
        elif not _is_what_was_sent(event, sent[1]):
            self._add("altered", f"{mark} was sent as {sent[1]}, came as {event.data}")

    def _end(self, event: Event, mark: Mark | None) -> None:
        self.status = event.status
        if event.type == "agent_response":
            response = event.data["response"]
            if response not in (SHORT, "".join(self._text)):
                self._add("altered", "the response is not what was streamed")
        if event.data.get("error_type") == "callback_gap":
            self._count(self._concluded())
        else:
            self._count(mark.number if mark and mark.attempt == self._attempt else None)

    def finish(self) -> None:
        """No more events come."""
        if self.status is None:
            self._count(self._concluded())

    def _concluded(self) -> int | None:
        """How many marks the newest attempt has, if it came to its end and was not heard."""
        return self._sent.concluded.get((self.task, self._attempt))

    def _count(self, number: int | None) -> None:
        """Compares the marks of each attempt with 1, 2, 3 …; `number`: how many the last has."""
        if number is not None:
            self._seen.setdefault(self._attempt, [])
        for attempt, numbers in self._seen.items():
            is_whole = number is not None and attempt == self._attempt
            expected = number if is_whole and number else max(numbers, default=0)
            missing = max(0, expected - len(set(numbers)))
            twice = len(numbers) - len(set(numbers))
            steps_back = sum(b < a for a, b in pairwise(numbers))
            about = f"attempt {attempt} has {numbers} of {expected}"
            counts = {"lost": missing, "duplicated": twice, "reordered": steps_back}
            for kind, count in counts.items():
                if count:
                    self._add(kind, about, count)
        self._seen.clear()

    def _add(self, kind: str, what: str, count: int = 1) -> None:
        self._findings.add(kind, f"task {self.task}: {what}", count)


def _is_what_was_sent(event: Event, sent: Mapping[str, Any]) -> bool:
    """Deltas and events are passed on as they are; an end may have a response put into it."""
    match event.type:
        case "agent_delta" | "agent_event":
            return event.data == sent
        case "agent_response":
            return {**event.data, **sent} == event.data
        case _:
            return True  # written anew from a few of its parts; its mark is one of them
