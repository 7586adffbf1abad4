"""The clients of a bench: sessions with one or two tabs, which keep their own records.

What a tab records is the raw frame, when it came, and on which connection; nothing is decided here
that the checker has to decide. Times in unix ms.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from benchmarks.rig.records import Journal, unix_ms

NO_CONNECTION = (OSError, EOFError, TimeoutError, InvalidHandshake, InvalidMessage)
TERMINAL = ("completed", "failed", "cancelled", "timeout")
LONGEST_PAUSE = 2.0  # seconds between two tries to connect


class Tab:
    """One connection after another of a session: resumes where it was, on whichever instance."""

    def __init__(
        self,
        session: "Log",
        number: int,
        ports: Sequence[int],
        dice: random.Random,
        *,
        compact: bool,
    ) -> None:
        self.session = session
        self.number = number
        self.is_live = False
        self.offset = 0
        self.epoch: str | None = None
        self.longest_outage = 0  # ms without a connection
        self.socket: ClientConnection | None = None
        self.answered: Callable[[str, dict[str, Any]], None] = lambda _, __: None
        self._ports = ports
        self._dice = dice
        self._compact = compact
        self._connection = 0
        self._lost_at = unix_ms()
        self._wait_first = 0.0
        self._failed_port: int | None = None

    async def run(self) -> None:
        """For ever, until it is cancelled."""
        tries = 0
        while True:
            connected = await self._once()
            tries = 0 if connected else tries + 1
            pause = min(LONGEST_PAUSE, 0.05 * 2**tries) * self._dice.uniform(0.5, 1.0)
            await asyncio.sleep(max(pause, self._wait_first))
            self._wait_first = 0.0

    async def _once(self) -> bool:
        """One connection's life. False if it did not come to one."""
        self._connection += 1
        port = another(self._ports, self._failed_port, self._dice)
        facts = {"tab": self.number, "connection": self._connection}
        self.session.write(**facts, asked=[self.epoch, self.offset], port=port)
        try:
            async with connect(
                self._url(port),
                compression=None,
                proxy=None,
                max_size=None,
                open_timeout=4,
                close_timeout=0.5,
                ping_interval=3,
                ping_timeout=4,
            ) as self.socket:
                await self._listen(self.socket)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            self.session.write(**facts, closed=code)
            self._failed_port = port
            return True
        except NO_CONNECTION as error:
            self.session.write(**facts, refused=type(error).__name__)
            self._failed_port = port
            return False
        finally:
            self.socket = None
            if self.is_live:
                self.is_live, self._lost_at = False, unix_ms()
        return True

    async def send(self, frame: dict[str, Any]) -> None:
        """Raises ConnectionClosed; also if there is no connection just now."""
        if self.socket is None:
            raise ConnectionClosed(None, None)
        await self.socket.send(orjson.dumps(frame).decode())

    def _url(self, port: int) -> str:
        url = f"ws://127.0.0.1:{port}/ws/{self.session.tenant}/{self.session.name}"
        resume = f"?offset={self.offset}" + (f"&epoch={self.epoch}" if self.epoch else "")
        return url + resume + ("&compact=1" if self._compact else "")

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            text = await socket.recv(decode=False)
            # As it came: the frame is not written anew, and its sender's bytes are compared.
            head = b'{"t":%d,"tab":%d,"connection":%d,"frame":' % (
                *(unix_ms(), self.number, self._connection),
            )
            self.session.write_line(head + text + b"}")
            self._handle(orjson.loads(text))

    def _handle(self, frame: dict[str, Any]) -> None:
        offset = frame.get("offset")
        if offset is not None:
            self.offset = offset
            self.session.note(frame)
            return
        match frame["type"]:
            case "connection_ack":
                self._join(frame["data"])
            case "reconnect":
                self._wait_first = frame["data"]["after_ms"] / 1000
            case "ack" | "error":
                self.answered(frame.get("id", ""), frame)

    def _join(self, ack: dict[str, Any]) -> None:
        if not ack["recovered"]:
            self.offset = ack["offset"]  # the checker makes of it what it is
        self.epoch = ack["epoch"]
        self.is_live = True
        self.longest_outage = max(self.longest_outage, unix_ms() - self._lost_at)

    def outage(self) -> int:
        """The longest time without a connection so far, ms."""
        now = 0 if self.is_live else unix_ms() - self._lost_at
        return max(self.longest_outage, now)


class Log:
    """One session's record, and what is needed of it while the bench runs."""

    def __init__(self, tenant: str, name: str, folder: Path) -> None:
        self.tenant: Final = tenant
        self.name: Final = name
        self.ended: dict[str, asyncio.Event] = {}  # task id -> it has ended
        self._journal = Journal(folder / f"client-{tenant}--{name}.jsonl")
        self.write = self._journal.write
        self.write_line = self._journal.write_line
        self.close = self._journal.close

    def end_of(self, task: str) -> asyncio.Event:
        return self.ended.setdefault(task, asyncio.Event())

    def note(self, frame: dict[str, Any]) -> None:
        """Sees when a task ends."""
        kind, data = frame["type"], frame["data"]
        is_end = kind in ("agent_response", "error") or (
            kind == "task_update" and data.get("status") == "cancelled"
        )
        if is_end and "task_id" in frame:
            self.end_of(frame["task_id"]).set()


def another(ports: Sequence[int], failed: int | None, dice: random.Random) -> int:
    """Any, but rather not the one that failed last: what a balancer or a good client does."""
    return dice.choice([port for port in ports if port != failed] or ports)


async def close_all(tabs: Sequence[asyncio.Task[None]]) -> None:
    """Ends what runs."""
    for tab in tabs:
        tab.cancel()
    for tab in tabs:
        with contextlib.suppress(asyncio.CancelledError):
            await tab
