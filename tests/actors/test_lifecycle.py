"""The words of an actor's life."""

import pytest

from actors.lifecycle import State, StoppedFlag


def test_states_are_spelled_as_the_tree_shows_them() -> None:
    assert [str(s) for s in State] == ["starting", "running", "restarting", "stopped", "failed"]


def test_the_stopped_flag_is_read_and_never_waited_for() -> None:
    flag = StoppedFlag()
    assert not flag.is_set()
    flag.set()
    assert flag.is_set()
    with pytest.raises(RuntimeError, match="await"):
        flag.wait()
