"""Throws inputs at one service, and judges each answer; what it finds goes to `Findings`."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable

import orjson

from benchmarks.rig.frame_inputs import FrameInputs
from benchmarks.rig.mutations import Mutator
from benchmarks.rig.rest_inputs import Request, RestInputs
from tests.support.raw import CLOSE, TEXT, RawSocket, frame, raw_socket

BURST = 12  # inputs of one connection; at 20 bad ones in a row it is closed
WITHIN = 10.0  # seconds; an answer that has not come by then does not come
PATIENCE = 2.0  # seconds; a frame whose length is wrong is waited for, and so swallows the mark
MARK = "the last of them"
TOO_MANY = (4413, 4429)  # of bad frames, or of frames
OUR_FAULT = (1011, 1012, 1013, 4008, 4410, 4500)
EXAMPLES = 20
NO_BODY = (204, 304)


class Judgement:
    """What was tried, what came back, and what should not have."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def blame(self, what: str, data: bytes) -> None:
        if len(self.wrong) < EXAMPLES:
            self.wrong.append(f"{what}, after {data[:300]!r}")


class FrameFuzzer:
    """Connections that each send some frames, and at last a ping that has to be answered.

    After frames that break RFC 6455 the connection may be closed instead, with a code that says so.
    """

    def __init__(self, port: int, inputs: FrameInputs, mutator: Mutator, judged: Judgement) -> None:
        self._port, self._inputs, self._judged = port, inputs, judged
        self._mutator = mutator

    async def burst(self) -> int:
        """One connection; returns how many inputs it has sent."""
        breaks = self._mutator.chance(0.3)
        sent = b""
        async with raw_socket(self._port) as raw:
            answer = await raw.upgrade(f"/ws/fuzz/s-{self._mutator.dice.randrange(50)}")
            if answer.status != 101:
                self._judged.blame(f"an upgrade was answered with {answer.status}", answer.body)
                return 1
            for _ in range(BURST - 1):
                sent += self._add(self._inputs.spoken)
            if breaks:
                sent += self._add(self._inputs.broken)
            await raw.write(sent + frame(TEXT, orjson.dumps({"type": "ping", "id": MARK})))
            try:
                async with asyncio.timeout(PATIENCE if breaks else WITHIN):
                    await self._read(raw, sent, breaks=breaks)
            except TimeoutError:
                self._judged.outcomes["waits for the rest of a frame"] += 1
                if not breaks:
                    self._judged.blame("neither an answer nor a close", sent)
        return BURST - 1 + breaks

    def _add(self, makers: dict[str, Callable[[], bytes]]) -> bytes:
        kind = self._mutator.dice.choice(list(makers))
        self._judged.tried[kind] += 1
        return makers[kind]()

    def _judge_close(self, code: int | None, sent: bytes, *, breaks: bool) -> None:
        self._judged.outcomes[f"closed with {code}"] += 1
        if not breaks and code not in TOO_MANY:
            self._judged.blame(f"closed with {code}, though it was spoken right", sent)
        elif code in OUR_FAULT:
            self._judged.blame(f"closed with {code}", sent)

    async def _read(self, raw: RawSocket, sent: bytes, *, breaks: bool) -> None:
        """Until the mark comes back, or the connection ends."""
        while True:
            try:
                got = await raw.frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                self._judged.outcomes["cut off"] += 1
                if not breaks:
                    self._judged.blame("cut off without a close", sent)
                return
            if got.opcode == CLOSE:
                self._judge_close(got.close_code, sent, breaks=breaks)
                return
            if got.opcode != TEXT:
                continue
            told = orjson.loads(got.payload)
            if told.get("id") == MARK:
                return
            code = told["data"].get("code", "") if told["type"] == "error" else ""
            if code in ("internal_error", "redis_unavailable", "overloaded", "draining"):
                self._judged.blame(f"an error frame {code}", sent)
            self._judged.outcomes[f"frame {told['type']} {code}".strip()] += 1


class RestFuzzer:
    """Requests, several on a connection; those that are hardly HTTP have one of their own."""

    def __init__(self, port: int, inputs: RestInputs, mutator: Mutator, judged: Judgement) -> None:
        self._port, self._inputs, self._judged = port, inputs, judged
        self._mutator = mutator

    async def burst(self) -> int:
        if self._mutator.chance(0.3):
            await self._garbled()
            return 1
        async with raw_socket(self._port) as raw:
            for number in range(BURST):
                kind = self._mutator.dice.choice(list(self._inputs.spoken))
                self._judged.tried[kind] += 1
                if not await self._ask(raw, self._inputs.spoken[kind]()):
                    return number + 1
        return BURST

    async def _ask(self, raw: RawSocket, request: Request) -> bool:
        """Sends it and judges the answer; whether the connection can be used again."""
        await raw.write(request.data)
        try:
            async with asyncio.timeout(WITHIN):
                status, headers, body = await _answer(raw, request.method)
        except TimeoutError:
            self._judged.blame("no answer", request.data)
            return False
        except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
            if request.operation is not None and request.data.isascii():
                self._judged.blame(f"cut off: {error!r}", request.data)
            self._judged.outcomes["cut off"] += 1
            return False
        self._judge(request, status, headers.get("content-type", ""), body)
        # After a refusal the service may hang up, rather than read what comes of the body.
        return status < 400 and headers.get("connection", "").lower() != "close"

    def _judge(self, request: Request, status: int, media_type: str, body: bytes) -> None:
        self._judged.outcomes[f"answer {status}"] += 1
        # A machine that is short of processors makes an instance unready, which is no mistake.
        if status >= 500 and b"stood still" not in body:
            self._judged.blame(f"answered with {status} {body[:200]!r}", request.data)
        if request.operation is None:
            return
        # A path that was broken may be nobody's or another one's, a header none that may be.
        told = request.operation["responses"].get(str(status))
        if told is None and status not in (400, 404, 405):
            self._judged.blame(f"answered with {status}, of which nothing is told", request.data)
        kinds = told.get("content", {}) if told else {"application/problem+json": {}}
        if body and media_type.partition(";")[0] not in kinds:
            self._judged.blame(f"answered {status} in {media_type!r}", request.data)

    async def _garbled(self) -> None:
        ((kind, make),) = self._inputs.broken.items()
        self._judged.tried[kind] += 1
        request = make()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with raw_socket(self._port) as raw, asyncio.timeout(WITHIN):
                await raw.write(request.data)
                raw.writer.write_eof()
                told = await raw.reader.read(12)
                self._judged.outcomes[f"bytes {told[9:12].decode('latin-1') or 'cut off'}"] += 1
                if told[9:10] == b"5":
                    self._judged.blame(f"answered with {told!r}", request.data)


async def _answer(raw: RawSocket, method: str) -> tuple[int, dict[str, str], bytes]:
    head = (await raw.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    status = int(first.split()[1])
    length = 0 if method == "HEAD" or status in NO_BODY else int(headers.get("content-length", 0))
    return status, headers, await raw.reader.readexactly(length)


def dice_of(seed: int, number: int) -> random.Random:
    """Dice of their own for each of those who throw, so that their order makes no difference."""
    return random.Random(f"{seed}/{number}")
