"""The list of sentences is true: every sentence has tests, and every test here has a sentence."""

from pathlib import Path

import pytest

from tests.contract.sentences import (
    CONTRACT,
    FOLDER,
    PROJECT,
    names_in,
    rows,
    sentences,
    sentences_in,
)

# These tell of sections 3 and 8, which are not in the list.
OTHERS = (Path(__file__).name, "test_limits.py", "test_tiers.py", "test_usage.py")
FILES = [each for each in sorted(FOLDER.glob("test_*.py")) if each.name not in OTHERS]


def test_every_row_has_tests_that_exist_or_says_why_not() -> None:
    for number, row in rows().items():
        assert row.tests or row.why_not, f"{number} has no test"
        for test in row.tests:
            path, _, name = test.partition("::")
            assert name in names_in(PROJECT / path), f"{number}: there is no {test}"


def test_rows_are_numbered_without_holes() -> None:
    for section in "456":
        numbers = [number for number in rows() if number.startswith(f"{section}.")]
        assert numbers == [f"{section}.{each}" for each in range(1, len(numbers) + 1)]
        assert numbers


@pytest.mark.parametrize("file", FILES, ids=[each.name for each in FILES])
def test_every_test_of_a_sentence_is_in_its_rows(file: Path) -> None:
    listed = rows()
    for name in names_in(file):
        test = f"{file.relative_to(PROJECT)}::{name}"
        for number in sentences_in(name):
            assert test in listed[number].tests, f"{number} does not list {test}"


def test_the_rows_cover_the_contract() -> None:
    """The contract is a document of its own; where there is no copy beside us, nothing is said."""
    if CONTRACT.exists():
        found = sentences(CONTRACT.read_text())
        listed = rows()
        assert listed.keys() == found.keys()
        for number, row in listed.items():
            assert found[number].startswith(row.words), number


def test_sentences_end_at_full_stops_and_tables_are_read_row_by_row() -> None:
    text = """
## 4. Frames

First one, `a.b` 1.5 and e.g. this. `Second` (2.) is it.
Third goes on
over lines.

| `type` | data |
| --- | --- |
| `x` | One. Two. |

**Title.** Fourth. Fifth.
**Ends made** are no title. Sixth.

## 5. None yet
## 6. Promises

1. One.
   Two.
2. Three.
"""
    assert list(sentences(text).items()) == [
        ("4.1", "First one, `a.b` 1.5 and e.g. this."),
        ("4.2", "`Second` (2.) is it."),
        ("4.3", "Third goes on over lines."),
        ("4.4", "`x` \u00b7 One. Two."),
        ("4.5", "Fourth."),
        ("4.6", "Fifth."),
        ("4.7", "**Ends made** are no title."),
        ("4.8", "Sixth."),
        ("6.1", "One."),
        ("6.2", "Two."),
        ("6.3", "Three."),
    ]


def test_a_name_tells_of_one_sentence_two_or_a_row_of_them() -> None:
    assert sentences_in("test_4_12_what") == {"4.12"}
    assert sentences_in("test_4_3_and_4_5_what") == {"4.3", "4.5"}
    assert sentences_in("test_4_3_to_4_5_what") == {"4.3", "4.4", "4.5"}
    assert sentences_in("test_4_27_offset_0_alone") == {"4.27"}
    with pytest.raises(AssertionError, match="does not say"):
        sentences_in("test_what")
