"""What a worker may be told."""

import pytest

from execution.settings import WorkerSettings, redacted


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"drain_seconds": -1},
        {"drain_seconds": float("nan")},
        {"name": ""},
        {"orchestrator_url": "localhost:8001"},
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "[-_]")):
        WorkerSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@host/1", "redis://:***@host/1"),
        ("rediss://user:sec%40ret@host:1/1?password=secret", "rediss://user:***@host:1/1"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert "secret" not in repr(WorkerSettings(redis_url=url))
