"""Children that never outlive the process that started them."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from common.processes import HAS_PRCTL, spawn_child
from tests.support.processes import WITHIN, Watched, service, word_from

SLEEP = "import sys, time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('up', flush=True); time.sleep(600)"
)
PARENT = """
import asyncio, sys
from common.processes import spawn_child

async def main():
    child = await spawn_child(sys.executable, "-c", "import time; time.sleep(600)",
                              watched=sys.argv[1] == "watched")
    print(child.pid, flush=True)
    await child.wait()

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["kernel", "watched"])
async def test_a_child_ends_when_its_parent_is_killed(how: str, loop: str) -> None:
    if how == "kernel" and not HAS_PRCTL:
        return  # this system has no such promise; the watcher stands in for it
    async with service(PARENT, how, loop) as parent:
        child = Watched(int(await word_from(parent)))
        with contextlib.closing(child):
            assert not child.has_ended()
            parent.kill()
            assert child.has_ended(WITHIN)


async def test_a_watched_childs_watcher_ends_with_the_child() -> None:
    child = await spawn_child(sys.executable, "-c", SLEEP, output=subprocess.DEVNULL, watched=True)
    watcher = Watched(await _only_child_of(child.pid))
    with contextlib.closing(watcher):
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        assert watcher.has_ended(WITHIN)


async def _only_child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()):
        await asyncio.sleep(0.01)  # a fork tells nobody
    return int(found[0])


async def test_stop_asks_first() -> None:
    with tempfile.TemporaryFile() as output:
        child = await spawn_child(sys.executable, "-c", SLEEP, output=output)
        assert child.returncode is None
        assert await child.stop(grace=WITHIN) == -signal.SIGTERM
        assert child.returncode == -signal.SIGTERM


async def test_stop_kills_a_child_that_does_not_listen() -> None:
    reading, writing = os.pipe()
    child = await spawn_child(sys.executable, "-c", STUBBORN, output=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as output:
        await asyncio.to_thread(output.readline)
        assert await child.stop(grace=0.05) == -signal.SIGKILL


async def test_stopping_a_child_that_has_ended_gives_its_status() -> None:
    child = await spawn_child(sys.executable, "-c", "raise SystemExit(7)")
    assert await child.wait() == 7
    child.kill()
    assert await child.stop(grace=1) == 7


async def test_a_child_has_a_process_session_of_its_own() -> None:
    child = await spawn_child(sys.executable, "-c", SLEEP, output=subprocess.DEVNULL)
    assert os.getsid(child.pid) == child.pid
    await child.stop(grace=WITHIN)


async def test_a_child_gets_its_environment_folder_and_open_files(tmp_path: Path) -> None:
    script = "import os, sys; print(os.environ['WORD'], os.getcwd(), os.fstat(int(sys.argv[1])))"
    with (tmp_path / "kept").open("w") as kept, (tmp_path / "output").open("wb") as output:
        child = await spawn_child(
            *(sys.executable, "-c", script, str(kept.fileno())),
            env={"WORD": "hello"},
            cwd=tmp_path,
            output=output,
            keep_open=[kept.fileno()],
        )
        assert await child.wait() == 0
    assert (tmp_path / "output").read_text().startswith(f"hello {tmp_path} os.stat_result")


async def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        child = await spawn_child("/no/such/program", output=output)
        assert await child.wait() == 1
    assert (tmp_path / "output").read_text() == "/no/such/program: No such file or directory\n"


async def test_a_folder_that_does_not_exist_leaves_nothing_open(tmp_path: Path) -> None:
    gc.collect()  # what earlier tests have dropped is not closed in the middle of this one
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        await spawn_child("true", cwd=tmp_path / "missing", watched=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_children_are_started_on_the_main_thread_only() -> None:
    complaints: list[BaseException] = []

    def on_another_thread() -> None:
        try:
            asyncio.run(spawn_child("true"))
        except RuntimeError as error:
            complaints.append(error)

    thread = threading.Thread(target=on_another_thread)
    thread.start()
    thread.join()
    assert "main thread" in str(complaints[0])
