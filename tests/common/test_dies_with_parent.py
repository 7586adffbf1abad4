"""The small program that becomes another one; what it promises is in test_processes.py."""

import os
import subprocess
import sys

from common import dies_with_parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", dies_with_parent.__file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_becomes_the_program() -> None:
    done = run(str(os.getpid()), "-1", "--", "echo", "as", "it is")
    assert (done.returncode, done.stdout, done.stderr) == (0, "as it is\n", "")


def test_nothing_is_started_once_the_parent_has_ended() -> None:
    done = run("999999999", "-1", "--", "echo", "never")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "echo: not started, the parent process has ended already\n"


def test_a_program_that_cannot_run_is_told_in_one_line() -> None:
    done = run(str(os.getpid()), "-1", "--", "/dev/null")
    assert (done.returncode, done.stderr) == (1, "/dev/null: Permission denied\n")
