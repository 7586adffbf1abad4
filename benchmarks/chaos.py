"""The chaos bench: real processes, real faults, and a checker that believes nobody.

    python -m benchmarks.chaos --minutes 10 --sessions 200 --seed 1        (or `make chaos`)

Three orchestrators, two executors of the bench's own and a worker of the project's share one Redis
with an append-only file; between every two of them is a proxy. Clients talk and write down what
they see, while faults and bad input come. In the end a checker reads what clients and executors
wrote down, and Redis, and says what was lost, doubled, reordered, leaked or left behind.
"""

import argparse
import asyncio
import os
import random
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import orjson

from benchmarks.rig import report
from benchmarks.rig.bench import Bench
from benchmarks.rig.checker import Checker
from benchmarks.rig.logs import check_logs

CONTROLS = ("dedupe", "gap", "fence", "ack")
BUSY = ("parallel", "enqueue", "reject", "interrupt")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 clean, 1 violations (or, of a control, none), 2 wrong options."""
    options = parser().parse_args(arguments)
    if options.redis_server:
        os.environ["TEST_REDIS_SERVER"] = options.redis_server
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    options.seed = seed
    folder = Path(options.keep or tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"{folder} is not empty; a run wants a folder of its own", file=sys.stderr)
        return 2
    try:
        passed = asyncio.run(_run(options, folder))
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if passed != bool(options.control) else 1


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 if nothing is wrong, 1 if anything is; with --control, where damage "
        "is expected, the other way round.",
    )
    options.add_argument("--minutes", type=float, default=10.0, help="of faults (default 10)")
    options.add_argument("--sessions", type=int, default=200, help="that talk (default 200)")
    options.add_argument("--tenants", type=int, default=20, help="they belong to (default 20)")
    options.add_argument("--seed", type=int, help="of all dice (default: a new one, shown)")
    options.add_argument(
        "--rate", type=float, default=0.1, help="messages per second and session (default 0.1)"
    )
    options.add_argument(
        "--if-busy",
        nargs="+",
        choices=BUSY,
        default=BUSY,
        metavar="WORD",
        help=f"what messages say of it: some of {', '.join(BUSY)} (default: all)",
    )
    options.add_argument("--no-faults", action="store_true", help="only the load, to compare with")
    options.add_argument(
        "--control",
        choices=CONTROLS,
        help="switch off a safeguard, to see that the checker reports the damage: dedupe and gap "
        "within seconds, fence and ack once the fault they are for has come",
    )
    options.add_argument(
        "--appendfsync",
        choices=("always", "everysec", "no"),
        default="always",
        help="how Redis keeps its append-only file (default always: nothing may be lost; with the "
        "others a killed Redis forgets the last moments of what it had confirmed, and the checker "
        "says so)",
    )
    options.add_argument("--redis-server", metavar="FILE", help="the Redis program to use")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    options.add_argument(
        "--keep", metavar="FOLDER", help="leave all records and logs there (must be empty)"
    )
    return options


async def _run(options: argparse.Namespace, folder: Path) -> bool:
    bench = Bench(options, folder)
    try:
        await bench.start()
        await bench.go()
        run = bench.result(_command(options))
        checker = Checker(folder, bench.state)
        findings = await asyncio.to_thread(checker.check)
    finally:
        await bench.stop()
    bench.add_findings(findings)
    check_logs(bench.topology.logs(), findings)
    print(report.table(run, checker.totals, findings))
    if options.json:
        result = report.as_json(run, checker.totals, findings)
        options.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return findings.is_clean


def _command(options: argparse.Namespace) -> str:
    words = ["--minutes", f"{options.minutes:g}", "--sessions", str(options.sessions)]
    words += ["--seed", str(options.seed), "--rate", f"{options.rate:g}"]
    if options.control:
        words += ["--control", options.control]
    return shlex.join(["python", "-m", "benchmarks.chaos", *words])


if __name__ == "__main__":
    sys.exit(main())
