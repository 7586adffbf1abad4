"""Decides what became of everything: from the records of clients and executors, and from Redis.

The invariants are those of a service that cannot lose, double or reorder: each session's offsets
without holes and told alike to all its tabs; each accepted message with one end; what is told of a
task exactly what its newest attempt sent; nothing of a stranger; nothing left behind.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rig.events import Event
from benchmarks.rig.final_state import FinalState
from benchmarks.rig.findings import Findings
from benchmarks.rig.records import read_journal
from benchmarks.rig.tab_check import TabCheck
from benchmarks.rig.task_check import Sent, TaskCheck

EXPECTED = (0, 202, 409, 429, 503)  # answers to a message; 0: none came
BAD_INPUT = "bad-input.jsonl"


@dataclass(slots=True)
class Totals:
    """What there was, besides what was wrong."""

    accepted: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    indeterminate: int = 0  # messages that were never answered with 202
    indeterminate_ended: int = 0
    events: int = 0
    callbacks: int = 0
    connections: int = 0
    letters: int = 0
    bad_inputs: int = 0
    longest_outage: int = 0  # ms without a connection
    longest_send: int = 0  # ms until a message was accepted
    slowest_refusal: int = 0  # ms until a 503 came
    latencies: list[int] = field(default_factory=list)


class Checker:
    """Reads one bench's folder. `check` may be called once."""

    def __init__(self, folder: Path, state: FinalState) -> None:
        self.findings = Findings()
        self.totals = Totals()
        self._folder = folder
        self._state = state
        self._sent = Sent.read(sorted(folder.glob("executor-*.jsonl")))

    def check(self) -> Findings:
        for journal in sorted(self._folder.glob("client-*.jsonl")):
            tenant, _, session = journal.stem.removeprefix("client-").partition("--")
            SessionCheck(tenant, session, self._sent, self).check(journal, self._state)
        for place, count in self._state.pending().items():
            self.findings.add("pending", f"{count} {place}", count)
        self.totals.callbacks = self._sent.callbacks
        self.totals.letters = self._state.check_letters(self._sent, self.findings)
        self._check_bad_input(self._folder / BAD_INPUT)
        return self.findings

    def _check_bad_input(self, journal: Path) -> None:
        """Refused, whatever it was; what is another tenant's is as if it did not exist."""
        for line in read_journal(journal) if journal.exists() else ():
            self.totals.bad_inputs += line.get("count", 1)
            status, what = line["status"], f"{line['kind']} was answered {line['status']}"
            if line.get("foreign") and status not in (0, 404, 503):
                self.findings.add("cross_tenant", what)
            elif status and (status < 400 or status >= 500) and status != 503:
                self.findings.add("unhandled", what)


class SessionCheck:
    """One session: its tabs, then its tasks, then what its clients were answered."""

    def __init__(self, tenant: str, session: str, sent: Sent, checker: Checker) -> None:
        self._address = (tenant, session)
        self._who = f"{tenant}/{session}"
        self._sent = sent
        self._findings = checker.findings
        self._totals = checker.totals
        self._tabs: dict[int, TabCheck] = {}
        self._log: dict[tuple[str, int], Event] = {}
        self._tasks: dict[str, TaskCheck] = {}
        self._answers: dict[str, set[str]] = {}  # key -> the tasks that 202s have named
        self._first_try: dict[str, int] = {}
        self._cancels: list[tuple[str, int, Any]] = []

    def check(self, journal: Path, state: FinalState) -> None:
        for line in read_journal(journal):
            self._line(line)
        self._merge()
        self._check_redis(state)
        self._check_tasks()
        self._check_answers(state)

    def _line(self, line: Mapping[str, Any]) -> None:
        if "tab" in line:
            self._tab(line["tab"]).line(line)
        elif "key" in line:
            self._answer(line)
        elif "cancel" in line:
            self._cancels.append((line["cancel"], line["status"], line["answer"]))

    def _tab(self, number: int) -> TabCheck:
        if number not in self._tabs:
            who = f"{self._who} tab {number}"
            self._tabs[number] = TabCheck(who, self._address, self._sent, self._findings)
        return self._tabs[number]

    def _answer(self, line: Mapping[str, Any]) -> None:
        key, status, at = line["key"], line["status"], line["t"]
        tasks = self._answers.setdefault(key, set())
        first = self._first_try.setdefault(key, at - line["took"])
        if status not in EXPECTED:
            self._findings.add("unhandled", f"{self._who}: a message was answered {line}")
        elif status == 503:
            self._totals.slowest_refusal = max(self._totals.slowest_refusal, line["took"])
        elif status == 202:
            if not tasks:
                self._totals.longest_send = max(self._totals.longest_send, at - first)
            tasks.add(line["answer"]["task_id"])

    # The log, as all tabs together have seen it.

    def _merge(self) -> None:
        for tab in self._tabs.values():
            self._totals.connections += tab.connections
            self._totals.longest_outage = max(self._totals.longest_outage, tab.longest_outage)
            self._totals.latencies += tab.latencies
            for place, event in tab.events.items():
                self._place(place, event)
        self._totals.events += len(self._log)

    def _place(self, place: tuple[str, int], event: Event) -> None:
        known = self._log.setdefault(place, event)
        if known.identity != event.identity:
            self._findings.add("conflicting", f"{self._who} at {place}: {known} and {event}")

    def _check_redis(self, state: FinalState) -> None:
        """Every tab has come to the log's end, and what Redis keeps is what they saw."""
        epoch, last, events = state.log_of(*self._address)
        for tab in self._tabs.values():
            if tab.position != last or tab.epoch != epoch:
                what = f"{tab.who} is at {tab.epoch}:{tab.position} of {epoch}:{last}"
                self._findings.add("lost", what, abs(last - tab.position) or 1)
        for event in events:
            self._place((epoch or "", event.offset), event)

    # Tasks.

    def _check_tasks(self) -> None:
        for _, event in sorted(self._log.items()):
            if event.task is not None:
                self._task(event.task).event(event)
        keys: Counter[str] = Counter()
        for task in self._tasks.values():
            task.finish()
            keys[task.key or task.task] += 1
        for key, count in keys.items():
            if count > 1:
                self._findings.add("duplicated", f"{self._who}: {count} tasks of {key}", count - 1)

    def _task(self, task: str) -> TaskCheck:
        if task not in self._tasks:
            self._tasks[task] = TaskCheck(task, self._address, self._sent, self._findings)
        return self._tasks[task]

    def _check_answers(self, state: FinalState) -> None:
        accepted: set[str] = set()
        for key, tasks in self._answers.items():
            if len(tasks) > 1:
                self._findings.add("duplicated", f"{self._who}: {key} became {tasks}")
            accepted |= tasks
        self._totals.accepted += len(accepted)
        for task in accepted:
            self._check_accepted(task, state)
        for task, check in self._tasks.items():
            if task not in accepted:
                self._totals.indeterminate_ended += check.status is not None
                if check.status is None:
                    self._findings.add("unended", f"{self._who}: task {task}, never answered")
        self._totals.indeterminate += sum(not tasks for tasks in self._answers.values())
        for task, status, answer in self._cancels:
            self._check_cancel(task, status, answer)

    def _check_accepted(self, task: str, state: FinalState) -> None:
        check = self._tasks.get(task)
        if check is None:
            self._findings.add("lost", f"{self._who}: accepted task {task} is not in the log")
            return
        kept = state.status_of(*self._address, task)
        if check.status is None:
            self._findings.add("unended", f"{self._who}: task {task} is {kept}")
            return
        self._totals.ends[check.status] += 1
        if kept != check.status:
            self._findings.add("altered", f"task {task} ended as {check.status}, but is {kept}")

    def _check_cancel(self, task: str, status: int, answer: Any) -> None:
        ended = self._tasks[task].status if task in self._tasks else None
        if status not in (0, 200, 202, 409, 503):
            self._findings.add("unhandled", f"cancel of {task} was answered {status} {answer}")
        elif status == 200 and ended != "cancelled":
            self._findings.add("altered", f"task {task} was cancelled, but is {ended}")
        elif status == 409 and ended == "cancelled":
            self._findings.add("altered", f"task {task} is cancelled, but that was refused")
