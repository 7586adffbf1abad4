"""The sentences of the wire contract, and which tests show each of them.

`SENTENCES.md` has a row for each sentence of sections 4, 5 and 6: its number, how it begins, and
its tests. A sentence ends at a full stop; a row of a table is a sentence, its cells joined by `·`.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SECTIONS = ("4", "5", "6")
FOLDER = Path(__file__).parent
PROJECT = FOLDER.parents[1]
LIST = FOLDER / "SENTENCES.md"
CONTRACT = PROJECT.parent / "shared" / "CONTRACT.md"

ROW = re.compile(r"\| (?P<number>\d+\.\d+) \| (?P<words>.+?) \| (?P<tests>.+) \|")
TEST = re.compile(r"(?:[\w/]+\.py::)?test_\w+")
LATER = re.compile(r"later: \S.+")  # why there is no test yet
SENTENCE_END = re.compile(r"(?<=\.)\s+(?=[A-Z`(])")
TITLE = re.compile(r"\*\*[^*]+\.\*\* ")
NEW_PARAGRAPH = re.compile(r"\*\*|\d+\. ")


NAMED = re.compile(r"test_(\d)_(\d+)(?:_(and|to)_(\d)_(\d+))?_[a-z]")


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence of the list. Tests are `path.py::name`, from the project's root.

    `why_not` says what has no test yet; there may be tests beside it.
    """

    words: str
    tests: tuple[str, ...]
    why_not: str


def rows() -> Mapping[str, Row]:
    """The list, by number."""
    found: dict[str, Row] = {}
    heading = FOLDER
    for line in LIST.read_text().splitlines():
        if line.startswith("## "):
            heading = FOLDER / line.split("`")[1]
        elif matched := ROW.fullmatch(line):
            assert matched["number"] not in found, f"{matched['number']} is listed twice"
            found[matched["number"]] = _row(matched, heading)
    return found


def _row(matched: re.Match[str], file: Path) -> Row:
    later = LATER.search(matched["tests"])
    return Row(
        words=matched["words"],
        tests=tuple(_address(test, file) for test in TEST.findall(matched["tests"])),
        why_not=later[0] if later else "",
    )


def _address(test: str, file: Path) -> str:
    path, _, name = test.rpartition("::")
    if not path:
        path = str(file.relative_to(PROJECT))
    elif "/" not in path:
        path = str((FOLDER / path).relative_to(PROJECT))
    return f"{path}::{name}"


def sentences_in(name: str) -> set[str]:
    """The sentences that the name of a test tells of."""
    matched = NAMED.match(name)
    assert matched is not None, f"{name} does not say which sentence it shows"
    section, first, joint, _, last = matched.groups()
    numbers = {
        "and": [int(first), int(last or 0)],
        "to": range(int(first), int(last or 0) + 1),
        None: [int(first)],
    }[joint]
    return {f"{section}.{number}" for number in numbers}


@cache
def names_in(file: Path) -> set[str]:
    """The names of a file's tests."""
    return {
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def sentences(contract: str) -> Mapping[str, str]:
    """All sentences of the three sections, by number."""
    return {
        f"{section}.{number}": sentence
        for section in SECTIONS
        for number, sentence in enumerate(_sentences_of(section, contract), start=1)
    }


def _sentences_of(section: str, contract: str) -> Iterator[str]:
    text = re.search(rf"^## {section}\. .*?\n(.*?)(?=^## |\Z)", contract, re.MULTILINE | re.DOTALL)
    assert text is not None, f"the contract has no section {section}"
    for paragraph in _paragraphs(text[1]):
        if paragraph.startswith("|"):
            yield from _table_row(paragraph)
        else:
            yield from SENTENCE_END.split(TITLE.sub("", paragraph, count=1))


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*map(str.strip, text.splitlines()), ""]:
        if lines and (not line or line.startswith("|") or NEW_PARAGRAPH.match(line)):
            yield " ".join(lines)
            lines = []
        if line.startswith("|"):
            yield line
        elif line:
            lines.append(re.sub(r"^\d+\. ", "", line))


def _table_row(line: str) -> Iterator[str]:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if cells[0] != "`type`" and set(cells[0]) != {"-"}:
        yield " · ".join(cells)
