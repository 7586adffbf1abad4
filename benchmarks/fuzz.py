"""Generated input against a real service: frames, fragments, requests, and what is hardly either.

    python -m benchmarks.fuzz --inputs 100000 --seed 2026        (or `make fuzz`)

One orchestrator with its worker, and a Redis of its own. What it must hold: no answer of 5xx, no
exception in its log, no loop that stands still for more than 50 ms by its own work, memory that
stays where it is, and an innocent client next to all this that notices nothing.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.rig import http
from benchmarks.rig.bystander import Bystander
from benchmarks.rig.frame_inputs import FrameInputs
from benchmarks.rig.fuzzer import FrameFuzzer, Judgement, RestFuzzer, dice_of
from benchmarks.rig.mutations import Mutator
from benchmarks.rig.rest_inputs import RestInputs
from benchmarks.rig.topology import Process
from tests.support.redis_server import RedisServer, free_port

LARGEST_FRAME = 65_536
MOST_STALL = 50.0  # milliseconds, of the loop's own work
MOST_GROWTH = 64  # MiB, after the first tenth of the inputs
THROWERS = 3  # of frames, and as many of requests

CONFIG = """\
server: {{port: {port}, max_body_bytes: 100000}}
redis: {{url: "redis://127.0.0.1:{redis}/0", key_prefix: "fuzz:"}}
websocket: {{max_message_bytes: {largest}, max_bad_handshakes_per_minute: null}}
execution: {{embedded_worker: true, default_timeout: 30}}
tiers: {{fuzzed: {{max_queued: 200, max_running: 4}}, calm: {{}}}}
tenants: {{bystander: {{tier: calm}}}}
default_tier: fuzzed
logging: {{format: json, level: info}}
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 nothing found, 1 something."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(options.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_run(options, folder))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--inputs", type=int, default=100_000, help="default 100000")
    options.add_argument("--seed", type=int, default=2026, help="of all dice (default 2026)")
    options.add_argument("--keep", metavar="FOLDER", help="leave the service's log there")
    return options


class Bench:
    """A service, who throws at it, and who is next to it."""

    def __init__(self, inputs: int, seed: int, folder: Path) -> None:
        self.inputs, self.seed = inputs, seed
        self.judged, self.bystander = Judgement(), Bystander()
        self._thrown = [0, 0]  # frames, requests
        self.seconds = 0.0
        self.memory: list[float] = []  # MiB, with each tenth of the inputs
        self.port = free_port()
        self._config = folder / "fuzz.yaml"
        self.log = folder / "orchestrator.log"
        command = (sys.executable, "run.py", "--config", str(self._config))
        self._process = Process("orchestrator", command, self.log, {})

    async def run(self) -> None:
        with RedisServer() as redis:
            self._config.write_text(
                CONFIG.format(port=self.port, redis=redis.port, largest=LARGEST_FRAME)
            )
            self._process.start()
            try:
                await self._ready()
                await self._throw()
                self.metrics = await self._metrics()
                self.is_alive = self._process.is_running()
                self.status = await self._process.stop(15.0)
            finally:
                await self._process.kill()

    async def _ready(self) -> None:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
                    if (await http.get(self.port, "/health/ready")).status == 200:
                        return
                await asyncio.sleep(0.05)

    async def _throw(self) -> None:
        document = (await http.get(self.port, "/openapi.json")).json()
        enough = asyncio.Event()
        calm = asyncio.create_task(self.bystander.run(self.port, enough))
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for number, burst in enumerate(self._bursts(document)):
                    group.create_task(self._keep_throwing(burst, number % 2))
        finally:
            self.seconds = time.monotonic() - began
            enough.set()
            await calm

    def _bursts(self, document: dict[str, object]) -> list[Callable[[], Awaitable[int]]]:
        found: list[Callable[[], Awaitable[int]]] = []
        for number in range(2 * THROWERS):
            mutator = Mutator(dice_of(self.seed, number))
            if number % 2:
                rest = RestInputs(mutator, document)
                found.append(RestFuzzer(self.port, rest, mutator, self.judged).burst)
            else:
                frames = FrameInputs(mutator, frame_schemas(document), LARGEST_FRAME)
                found.append(FrameFuzzer(self.port, frames, mutator, self.judged).burst)
        return found

    async def _keep_throwing(self, burst: Callable[[], Awaitable[int]], side: int) -> None:
        """Until half of the inputs, those of this side, are thrown."""
        while self._thrown[side] * 2 < self.inputs and self._process.is_running():
            count = await burst()
            self._thrown[side] += count
            if self.thrown * 10 >= self.inputs * (len(self.memory) + 1):
                self.memory.append(resident(self._process.pid))
                print(f"  {self.thrown:>7} inputs, {self.memory[-1]:.0f} MiB", file=sys.stderr)

    @property
    def thrown(self) -> int:
        return sum(self._thrown)

    async def _metrics(self) -> dict[str, float]:
        """Samples by name; of the lag's histogram, how often it was late by more than 50 ms."""
        text = (await http.get(self.port, "/metrics")).body.decode()
        samples = [
            each for family in text_string_to_metric_families(text) for each in family.samples
        ]
        found = {each.name: each.value for each in samples}
        within = {each.labels["le"]: each.value for each in samples if "le" in each.labels}
        found["late"] = within["+Inf"] - within["0.05"]
        return found

    def findings(self) -> list[str]:
        """What should not have been."""
        found = [*self.judged.wrong, *complaints(self.log)]
        if self.bystander.complaint:
            found.append(f"the bystander: {self.bystander.complaint}")
        if not self.is_alive or self.status != 0:
            found.append(f"the process ended with {self.status}")
        if (busiest := self.metrics["orchestrator_loop_busy_max_seconds"] * 1000) > MOST_STALL:
            found.append(f"the loop stood still for {busiest:.0f} ms by its own work")
        if (growth := self.memory[-1] - self.memory[0]) > MOST_GROWTH:
            found.append(f"memory grew by {growth:.0f} MiB")
        return found

    def table(self) -> str:
        def row(name: str, value: str) -> str:
            return f"{name:<34}{value}"

        metrics, calm = self.metrics, self.bystander
        rows = [
            row("command", f"python -m benchmarks.fuzz --inputs {self.inputs} --seed {self.seed}"),
            row("inputs", f"{self.thrown} in {self.seconds:.0f} s"),
            *(row(f"  {kind}", str(count)) for kind, count in self.judged.tried.most_common()),
            "answers",
            *(row(f"  {kind}", str(count)) for kind, count in self.judged.outcomes.most_common()),
            row(
                "the loop stood still",
                f"{metrics['orchestrator_loop_busy_max_seconds'] * 1000:.0f} ms at most by its own"
                f" work, {metrics['orchestrator_loop_lag_max_seconds'] * 1000:.0f} ms in all;"
                f" {metrics['late']:.0f} times above 50 ms",
            ),
            row(
                "memory",
                f"{self.memory[0]:.0f} MiB after a tenth, {self.memory[-1]:.0f} MiB at last",
            ),
            row(
                "the bystander",
                f"{calm.pongs} pongs, the slowest after {calm.slowest_pong * 1000:.0f} ms;"
                f" {calm.answers} answers, the slowest after {calm.slowest_answer * 1000:.0f} ms",
            ),
        ]
        return "\n".join(rows)


def frame_schemas(document: dict[str, object]) -> dict[str, dict[str, object]]:
    """The schemas of client frames: those of the REST bodies without tenant and session."""
    schemas: dict[str, dict[str, object]] = document["components"]["schemas"]  # type: ignore[index]
    names = {
        "chat.send_message": "SendMessage",
        "chat.get_status": "GetStatus",
        "chat.cancel_task": "CancelTask",
    }
    return {kind: _without_address(schemas[name]) for kind, name in names.items()}


def _without_address(schema: dict[str, object]) -> dict[str, object]:
    properties: dict[str, object] = schema["properties"]  # type: ignore[assignment]
    own = {
        name: each for name, each in properties.items() if name not in ("tenant_id", "session_id")
    }
    return {**schema, "properties": own}


def complaints(log: Path) -> list[str]:
    """Lines of the service's log that tell of a mistake."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            found.append(f"the log: {line[:300]}")
            continue
        if said.get("level") in ("error", "critical") or "exception" in said or "traceback" in said:
            found.append(f"the log: {line[:600]}")
    return found[:20]


def resident(pid: int) -> float:
    """Memory of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _run(options: argparse.Namespace, folder: Path) -> int:
    bench = Bench(options.inputs, options.seed, folder)
    await bench.run()
    print(bench.table())
    findings = bench.findings()
    for each in findings:
        print(f"  {each}")
    print("FAILED" if findings else "nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
