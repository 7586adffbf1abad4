"""What is written down can be read again, and a payload is known by its mark."""

from pathlib import Path

from benchmarks.rig.records import Journal, Mark, Marker, marks_in, read_journal


def test_marks_are_found_in_a_text_in_order() -> None:
    marker = Marker("t", "s", "task", 2)
    text = f"{marker()} one {marker()}two"
    assert marks_in(text) == [Mark("t", "s", "task", 2, 1), Mark("t", "s", "task", 2, 2)]


def test_a_text_without_marks_has_none() -> None:
    assert marks_in("⟦t|s|task|x|1⟧ and ⟦ alone") == []


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    journal.write(a=1)
    journal.write_line(b'{"b":2}')
    journal.close()
    first, second = read_journal(tmp_path / "a.jsonl")
    assert first["a"] == 1
    assert second == {"b": 2}


def test_the_last_line_may_be_torn_by_its_writers_end(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a":1}\n{"b":')
    assert list(read_journal(file)) == [{"a": 1}]
