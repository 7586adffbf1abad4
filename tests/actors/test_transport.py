"""What a SessionActor writes to: the service's socket and the tests' recorder keep one promise."""

from actors.transport import Transport
from orchestrator.transport import SocketTransport
from tests.actors.instance import RecordingTransport

# The type checker compares every method; what a real socket does is in tests/orchestrator.
IMPLEMENTATIONS: tuple[type[Transport], ...] = (SocketTransport, RecordingTransport)


def test_every_transport_has_what_the_protocol_names() -> None:
    names = {"queued", "sent", "write", "when_drained", "close"}
    assert names == {name for name in vars(Transport) if not name.startswith("_")}
    for implementation in IMPLEMENTATIONS:
        assert {"write", "when_drained", "close"} <= vars(implementation).keys()


async def test_a_drained_transport_calls_back_at_once_and_another_when_it_is() -> None:
    called: list[str] = []
    transport = RecordingTransport(is_slow=True)
    transport.when_drained(lambda: called.append("at once"))
    transport.write([b'{"type":"pong"}'])
    transport.when_drained(lambda: called.append("later"))
    assert (called, transport.queued - transport.sent) == (["at once"], 15)
    transport.drain()
    assert called == ["at once", "later"]


async def test_closing_again_changes_nothing() -> None:
    transport = RecordingTransport()
    transport.close(4008, "slow")
    transport.close(4500, "failed")
    assert transport.closed == (4008, "slow")
