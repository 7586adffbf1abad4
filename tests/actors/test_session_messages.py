"""What the actor of a connection is told does not change on the way."""

import dataclasses

import pytest

from actors import session_messages
from actors.session_messages import Close, Connection, Left
from common.domain.ids import SessionId, SessionKey, TenantId
from common.domain.resume import ResumeRequest

SESSION = SessionKey(TenantId("acme"), SessionId("s"))


def test_every_message_that_carries_something_is_frozen() -> None:
    carrying = [each for each in vars(session_messages).values() if dataclasses.is_dataclass(each)]
    assert {Close, Connection, Left} <= set(carrying)
    for each in carrying:
        assert each.__dataclass_params__.frozen, each  # type: ignore[union-attr]


def test_a_connection_lasts_until_somebody_says_otherwise() -> None:
    connection = Connection(
        connection_id="c",
        session=SESSION,
        user_id=None,
        request=ResumeRequest(epoch=None, offset=None),
        compact=False,
    )
    assert connection.expires_at is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        connection.compact = True  # type: ignore[misc]
