"""What a worker takes, and what it adds, as Redis has them."""

from common.queues.work_entries import Report, WorkEntry, entries_of


def test_entries_are_read_as_they_were_delivered() -> None:
    first, second = entries_of(
        "stream", [(b"1-0", [b"task_id", b"t", b"action", b"{}"]), (b"2-0", [b"other", b"x"])]
    )
    assert (first.stream, first.entry_id, first.task_id, first.action) == (
        *("stream", "1-0"),
        *("t", b"{}"),
    )
    assert (second.task_id, second.action) == ("", b"")


def test_an_id_that_is_no_text_is_still_an_id() -> None:
    assert WorkEntry("stream", "1-0", {b"task_id": b"\xff"}).task_id == "\ufffd"


def test_a_report_is_added_with_all_the_fields_of_the_contract() -> None:
    report = Report("stream", "t", "acme", "s1", 2, 3, "delta", b'{"text":"x"}')
    verb, stream, entry_id, *fields = report.command()
    assert (verb, stream, entry_id) == ("XADD", "stream", "*")
    assert dict(zip(fields[::2], fields[1::2], strict=True)) == {
        "task_id": "t",
        "tenant_id": "acme",
        "session_id": "s1",
        "attempt": 2,
        "seq": 3,
        "type": "delta",
        "data": b'{"text":"x"}',
    }
