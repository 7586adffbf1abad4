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

HEADING = re.compile(r"## .*`(.+\.py)`")
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
    file = ""
    for line in MATRIX.read_text().splitlines():
        if heading := HEADING.match(line):
            file = heading[1]
        if row := ROW.fullmatch(line):
            number, fault, said = row.groups()
            assert number not in found, f"{number} stands there twice"
            tests = tuple(_full(name, file) for name in TEST.findall(said))
            found[number] = Row(fault, tests, re.search(r"waived: \w", said) is not None)
    return found


def _full(name: str, file: str) -> str:
    path, _, test = name.rpartition("::")
    path = path or file
    return f"{path if '/' in path else f'tests/faults/{path}'}::{test}"


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
    for file in ("process", "redis", "client", "queue"):
        path = f"tests/faults/test_{file}_faults.py"
        for name in names_in(PROJECT / path):
            if name.startswith("test_"):
                assert f"{path}::{name}" in named, f"{name} is in no row"
