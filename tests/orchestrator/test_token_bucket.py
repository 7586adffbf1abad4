"""A rate kept with two numbers."""

from orchestrator.token_bucket import TokenBucket


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(bucket: TokenBucket, tries: int) -> int:
    return sum(bucket.take() for _ in range(tries))


def test_a_seconds_worth_may_be_taken_at_once_and_not_one_more() -> None:
    bucket = TokenBucket(5, Clock())
    assert taken(bucket, 4) == 4
    assert bucket.take()
    assert not bucket.take()


def test_it_fills_with_time_and_never_above_its_rim() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    assert taken(bucket, 11) == 10
    clock.now += 0.25
    assert taken(bucket, 5) == 2
    clock.now += 3600
    assert taken(bucket, 11) == 10


def test_over_a_minute_no_more_is_taken_than_the_rate_and_what_it_held() -> None:
    clock = Clock()
    bucket = TokenBucket(7, clock)
    total = 0
    for _ in range(6000):
        clock.now += 0.01
        total += taken(bucket, 3)
    assert 7 * 60 <= total <= 7 * 61


def test_without_a_rate_it_never_runs_dry() -> None:
    assert taken(TokenBucket(None, Clock()), 100_000) == 100_000
