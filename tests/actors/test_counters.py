"""An instance's counts go up and down with its connections, never below nothing."""

from actors.counters import Counters


def test_connections_are_counted_in_all_and_by_tenant() -> None:
    counters = Counters()
    counters.connected("acme")
    counters.connected("acme")
    counters.connected("globex")
    counters.disconnected("acme")
    assert (counters.connections, counters.total_connections, counters.peak_connections) == (
        2,
        3,
        3,
    )
    assert dict(counters.connections_by_tenant) == {"acme": 1, "globex": 1}


def test_a_tenant_without_connections_is_not_listed() -> None:
    counters = Counters()
    counters.connected("acme")
    counters.disconnected("acme")
    assert dict(counters.connections_by_tenant) == {}
    assert (counters.connections, counters.peak_connections) == (0, 1)


def test_an_instance_that_knows_of_no_other_is_a_cluster_of_one() -> None:
    assert Counters().cluster.instances == 1
