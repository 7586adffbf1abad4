"""Times as the contract spells them."""

import time

import pytest

from common.domain.times import now_ms, rfc3339


@pytest.mark.parametrize(
    ("unix_ms", "spelled"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_769_853_600_123, "2026-01-31T10:00:00.123Z"),
        (1_769_853_600_007, "2026-01-31T10:00:00.007Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_told_in_utc_with_milliseconds(unix_ms: int, spelled: str) -> None:
    assert rfc3339(unix_ms) == spelled


def test_now_is_in_milliseconds() -> None:
    before = time.time()
    assert before * 1000 - 1 <= now_ms() <= time.time() * 1000 + 1
