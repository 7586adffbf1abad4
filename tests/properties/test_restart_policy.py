"""However failures follow each other: never more restarts than the policy allows."""

from hypothesis import given
from hypothesis import strategies as st

from actors.restart_policy import RestartPolicy, Restarts


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
