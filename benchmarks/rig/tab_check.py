"""Checks one tab: what it got on each connection goes on where the one before it ended (I2, I4)."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.rig.events import Event, events_of
from benchmarks.rig.findings import Findings
from benchmarks.rig.task_check import Sent


class TabCheck:
    """Fed with a tab's lines in order; collects its events and its outages."""

    def __init__(self, who: str, address: tuple[str, str], sent: Sent, findings: Findings) -> None:
        self.who = who
        self.position = 0
        self.events: dict[tuple[str, int], Event] = {}
        self.epoch: str | None = None
        self.longest_outage = 0  # ms between the end of a connection and the next one's first word
        self.latencies: list[int] = []  # ms from an executor's hand into the tab
        self.connections = 0
        self._address = address
        self._sent = sent
        self._findings = findings
        self._asked: tuple[str | None, int] = (None, 0)
        self._is_acked = False
        self._lost_at: int | None = None

    def line(self, line: Mapping[str, Any]) -> None:
        if "frame" in line:
            self._frame(line["frame"], line["t"])
        elif "asked" in line:
            self._asked = (line["asked"][0], line["asked"][1])
            self._is_acked = False
        elif "closed" in line or "refused" in line:
            self._lost_at = self._lost_at or line["t"]

    def _frame(self, frame: Mapping[str, Any], at: int) -> None:
        if (frame["tenant_id"], frame["session_id"]) != self._address:
            self._add("cross_tenant", f"a frame of {frame['tenant_id']}/{frame['session_id']}")
        if frame["type"] == "connection_ack":
            self._ack(frame["data"], at)
        elif not self._is_acked:
            self._add("altered", f"{frame['type']} before connection_ack")
        elif "offset" in frame:
            self._event(frame, at)

    def _ack(self, ack: Mapping[str, Any], at: int) -> None:
        self._is_acked = True
        self.connections += 1
        if self._lost_at is not None:
            self.longest_outage = max(self.longest_outage, at - self._lost_at)
            self._lost_at = None
        epoch, offset = self._asked
        if not ack["recovered"]:
            self._add("unrecovered", f"asked for {epoch}:{offset}, got {ack}")
            self.position = ack["offset"]
        elif epoch not in (None, ack["epoch"]):
            self._add("altered", f"recovered, but the epoch {epoch} became {ack['epoch']}")
        self.epoch = ack["epoch"]

    def _event(self, frame: Mapping[str, Any], at: int) -> None:
        try:
            events = events_of(frame)
        except ValueError as error:
            self._add("altered", str(error))
            self.position = max(self.position, frame["offset"])
            return
        self._note_latency(events, at)
        self._place(events)

    def _place(self, events: Iterable[Event]) -> None:
        for event in events:
            key = (self.epoch or "", event.offset)
            if key in self.events:
                self._add("duplicated", f"offset {event.offset} again")
            elif event.offset <= self.position:
                self._add("reordered", f"offset {event.offset} after {self.position}")
            elif event.offset > self.position + 1:
                hole = event.offset - self.position - 1
                self._add("lost", f"{hole} events before offset {event.offset}", hole)
            self.position = max(self.position, event.offset)
            known = self.events.setdefault(key, event)
            if known.identity != event.identity:
                self._add("conflicting", f"offset {event.offset}: {known} and {event}")

    def _note_latency(self, events: list[Event], at: int) -> None:
        if len(events) == 1 and events[0].type == "agent_delta":
            mark = events[0].mark
            sent = mark and self._sent.payloads.get((mark.task, mark.attempt, mark.number))
            if sent:
                self.latencies.append(at - sent[0])

    def _add(self, kind: str, what: str, count: int = 1) -> None:
        self._findings.add(kind, f"{self.who}: {what}", count)
