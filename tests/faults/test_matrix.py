"""The fault matrix is true: every row is there, has a test that exists, or says why not."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
MATRIX = Path(__file__).with_name("MATRIX.md")
ROWS = {"P": 14, "R": 24, "N": 9, "B": 17, "Q": 11}  # how many the list of faults has

FILE = re.compile(r"`([\w/]+\.py)`")
ROW = re.compile(r"\| ([PRNBQ]\d+) \| (.+?) \| (.+) \|")
TEST = re.compile(r"`((?:[\w/.]+\.py::)?test_\w+)`")


@dataclass(frozen=True)
class Row:
    fault: str
    tests: tuple[str, ...]
    is_waived: bool


def rows() -> dict[str, Row]:
    """Each row by its number; tests as paths from the project's folder."""
    found: dict[str, Row] = {}
    files: tuple[str, ...] = ()
    for line in MATRIX.read_text().splitlines():
        if line.startswith("## "):
            files = files_of(line)
        if row := ROW.fullmatch(line):
            number, fault, said = row.groups()
            assert number not in found, f"{number} stands there twice"
            tests = tuple(_full(name, files) for name in TEST.findall(said))
            found[number] = Row(fault, tests, re.search(r"waived: \w", said) is not None)
    return found


def files_of(heading: str) -> tuple[str, ...]:
    """The files that a heading names, whose tests its rows need not look for."""
    return tuple(_from_here(path) for path in FILE.findall(heading))


def _full(name: str, files: tuple[str, ...]) -> str:
    path, _, test = name.rpartition("::")
    if not path:
        path = next((file for file in files if test in names_in(PROJECT / file)), files[0])
    return f"{_from_here(path)}::{test}"


def _from_here(path: str) -> str:
    return path if "/" in path else f"tests/faults/{path}"


@cache
def names_in(path: Path) -> frozenset[str]:
    """The tests of a file."""
    return frozenset(_functions(ast.parse(path.read_text())))


def _functions(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def test_every_row_is_there() -> None:
    wanted = [f"{letter}{number + 1}" for letter, count in ROWS.items() for number in range(count)]
    assert list(rows()) == wanted


def test_every_row_has_a_test_or_a_reason() -> None:
    for number, row in rows().items():
        assert row.tests or row.is_waived, f"{number} has neither"


def test_every_test_that_is_named_exists() -> None:
    for number, row in rows().items():
        for test in row.tests:
            path, _, name = test.partition("::")
            assert name in names_in(PROJECT / path), f"{number}: there is no {test}"


def test_every_test_of_a_fault_is_named() -> None:
    named = {test for row in rows().values() for test in row.tests}
    headings = [line for line in MATRIX.read_text().splitlines() if line.startswith("## ")]
    files = {file for heading in headings for file in files_of(heading)}
    assert len(files) > 5
    for file in files:
        for name in names_in(PROJECT / file):
            if file.startswith("tests/faults/") and name.startswith("test_"):
                assert f"{file}::{name}" in named, f"{name} is in no row"
