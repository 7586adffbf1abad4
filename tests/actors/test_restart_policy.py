"""When a restart is due, and when no more."""

from hypothesis import given
from hypothesis import strategies as st

from actors.restart_policy import RestartPolicy, Restarts


def test_delays_double_up_to_the_longest() -> None:
    policy = RestartPolicy(jitter=0.0)
    assert [policy.delay(n) for n in range(4)] == [0.05, 0.1, 0.2, 0.4]
    assert policy.delay(1_000_000) == 10.0


def test_more_failures_than_allowed_within_the_period_are_given_up() -> None:
    restarts = Restarts(RestartPolicy(max_restarts=2, period=10))
    assert restarts.next_delay(0.0) is not None
    assert restarts.next_delay(1.0) is not None
    assert restarts.next_delay(9.9) is None


def test_restarts_long_ago_are_forgotten_and_the_delay_is_short_again() -> None:
    restarts = Restarts(RestartPolicy(max_restarts=2, period=10, jitter=0.0))
    assert restarts.next_delay(0.0) == 0.05
    assert restarts.next_delay(1.0) == 0.1
    assert restarts.next_delay(11.0) == 0.05


@given(
    st.lists(st.floats(0, 30), max_size=60), st.integers(0, 6), st.floats(0.1, 60), st.floats(0, 1)
)
def test_no_period_ever_sees_more_restarts_than_allowed(
    gaps: list[float], most: int, period: float, jitter: float
) -> None:
    policy = RestartPolicy(max_restarts=most, period=period, jitter=jitter)
    restarts, now, allowed = Restarts(policy), 0.0, list[float]()
    for gap in gaps:
        now += gap
        delay = restarts.next_delay(now)
        if delay is not None:
            assert 0 <= delay <= policy.max_delay
            allowed.append(now)
        assert len([at for at in allowed if at > now - period]) <= most
