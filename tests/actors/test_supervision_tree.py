"""The tree has one shape, however many there are below."""

from collections.abc import Collection

from structlog.testing import capture_logs

from actors.loop_actor import LoopActor, LoopRef
from actors.supervision_tree import node_of
from tests.actors.examples import Echo


class SessionActor(Echo):
    """A stand-in for the many."""


class Manager(LoopActor):
    def __init__(self, refs: list[LoopRef]) -> None:
        super().__init__()
        self.refs = refs

    def describe_children(self) -> Collection[LoopRef]:
        return self.refs


async def test_a_node_shows_an_actor_and_those_it_looks_after() -> None:
    below = Echo.start(name="supervisor/manager/echo")
    ref = Manager.start([below], name="supervisor/manager")
    assert await below.ask(1) == 1
    below.tell("waits")
    echo = {"name": "echo", "class": "Echo", "state": "running", "restarts": 0, "mailbox": 1}
    assert node_of(ref) == {
        "name": "manager",
        "class": "Manager",
        "state": "running",
        "restarts": 0,
        "mailbox": 0,
        "children": [echo | {"children": []}],
    }


async def test_more_than_a_hundred_are_one_line_for_each_class() -> None:
    refs = [SessionActor.start() for _ in range(101)]
    ref = Manager.start([*refs, Echo.start()])
    assert await ref.ask(1) is None
    await refs[0].stop()
    refs[1].tell("waits")
    sessions, echoes = node_of(ref)["children"]
    assert sessions == {
        "name": "sessions",
        "class": "SessionActor",
        "state": "running: 100, stopped: 1",
        "restarts": 0,
        "mailbox": 1,
        "children": [],
    }
    assert echoes["name"] == "echos"
    refs.pop()
    ref = Manager.start(refs)
    assert len(node_of(ref)["children"]) == 100


async def test_one_that_cannot_describe_its_children_is_shown_without() -> None:
    class Mute(LoopActor):
        def describe_children(self) -> Collection[LoopRef]:
            raise OSError("no words")

    ref = Mute.start()
    with capture_logs() as lines:
        assert node_of(ref)["children"] == []
    assert [line["event"] for line in lines] == ["children.undescribed"]
    await ref.stop()
    assert node_of(ref)["children"] == []
