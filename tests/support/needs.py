"""Folders of tests that need more than requirements.txt, so that a plain `pytest` works without.

Such a folder says so in its conftest.py:

    collect_ignore_glob = left_out(__file__, packages=["hypothesis"])

Where something is missing the folder is not collected, and the end of the run says so. It is an
error instead where all tests are wanted: packages under `make test`, programs too in CI.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

NOT_RUN: list[str] = []  # a line for each folder that was left out


def left_out(conftest: str, packages: list[str], programs: tuple[str, ...] = ()) -> list[str]:
    """What to ignore in the folder of `conftest`: nothing, or all. One of `programs` is enough."""
    no_packages = [name for name in packages if importlib.util.find_spec(name) is None]
    no_programs = [] if not programs or any(map(shutil.which, programs)) else [programs[0]]
    if not no_packages and not no_programs:
        return []
    folder = Path(conftest).parent.name
    line = f"tests/{folder} was not run: it needs {', '.join(no_packages + no_programs)}"
    in_ci = bool(os.environ.get("CI"))
    if in_ci or (no_packages and os.environ.get("REQUIRE_ALL_TESTS")):
        raise pytest.UsageError(line)
    NOT_RUN.append(f"{line} (packages are in requirements-dev.txt; `make test` installs them)")
    return ["*"]
