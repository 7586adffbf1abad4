"""When a restart is due, and when no more."""

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


def test_only_the_restarts_within_the_period_count() -> None:
    policy = RestartPolicy(max_restarts=2, period=1, jitter=0.5)
    restarts, allowed = Restarts(policy), list[float]()
    for tenths in range(100):
        now = tenths / 10
        delay = restarts.next_delay(now)
        if delay is not None:
            assert 0 < delay <= policy.max_delay
            allowed.append(now)
    assert len(allowed) == 20


def test_a_policy_without_restarts_gives_up_at_once() -> None:
    assert Restarts(RestartPolicy(max_restarts=0)).next_delay(0.0) is None
