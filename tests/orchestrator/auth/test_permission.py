"""An action becomes what its caller may have done; the whole over the wire: the access matrix."""

import pytest

from common.domain.actions import (
    ChatCancelTaskAction,
    ChatGetStatusAction,
    ChatSendMessageAction,
    Priority,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.errors import Forbidden, TaskNotFound
from common.domain.ids import AgentId, SessionId, TaskId, TenantId, UserId
from config.settings import Settings, TenantSettings
from orchestrator.auth.caller import ANYONE, Caller, Scope
from orchestrator.auth.permission import permitted, tier_of

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
S1, S2 = SessionId("s-1"), SessionId("s-2")
TIERS = {"acme": "free", "globex": "pro"}
SETTINGS = Settings(
    tenants={tenant: TenantSettings(tier=tier) for tenant, tier in TIERS.items()}, default_tier=None
)
BOUND = Caller(
    name="alice",
    tenant_id=ACME,
    user_id=UserId("alice"),
    sessions=frozenset({S1}),
    scopes=frozenset(Scope),
)


def message(
    tenant: TenantId = ACME, session: SessionId = S1, priority: Priority = Priority.NORMAL
) -> ChatSendMessageAction:
    return ChatSendMessageAction(
        tenant_id=tenant,
        session_id=session,
        agent_id=AgentId("a"),
        message="m",
        timeout=1,
        priority=priority,
    )


def test_a_message_is_its_callers() -> None:
    assert permitted(message(), BOUND, SETTINGS).user_id == "alice"


@pytest.mark.parametrize("asked", Priority)
def test_a_priority_is_at_most_that_of_the_tier(asked: Priority) -> None:
    assert permitted(message(ACME, priority=asked), ANYONE, SETTINGS).priority == Priority.LOW
    assert permitted(message(GLOBEX, priority=asked), ANYONE, SETTINGS).priority == asked


def test_a_task_is_looked_for_in_the_callers_sessions() -> None:
    for action in (
        ChatGetStatusAction(tenant_id=ACME, task_id=TaskId("t")),
        ChatCancelTaskAction(tenant_id=ACME, task_id=TaskId("t")),
    ):
        assert permitted(action, BOUND, SETTINGS).within == BOUND.sessions
        assert permitted(action, ANYONE, SETTINGS).within is None


def test_what_is_not_the_callers_is_refused() -> None:
    for action in (
        message(GLOBEX),
        message(session=S2),
        WebSocketSendAction(tenant_id=GLOBEX, session_id=S1, message_data={}),
        WebSocketSendAction(tenant_id=ACME, session_id=S2, message_data={}),
        WebSocketSendAction(tenant_id=ACME, session_id=S1, message_data={}, user_id=UserId("bob")),
        WebSocketBroadcastAction(tenant_id=ACME, message_data={}),
        WebSocketBroadcastAction(tenant_id=GLOBEX, message_data={}, target_sessions=(S1,)),
        WebSocketBroadcastAction(tenant_id=ACME, message_data={}, target_sessions=(S1, S2)),
    ):
        with pytest.raises(Forbidden):
            permitted(action, BOUND, SETTINGS)
    with pytest.raises(TaskNotFound):
        permitted(ChatGetStatusAction(tenant_id=GLOBEX, task_id=TaskId("t")), BOUND, SETTINGS)
    to_one = WebSocketBroadcastAction(tenant_id=ACME, message_data={}, target_sessions=(S1,))
    assert permitted(to_one, BOUND, SETTINGS).user_id == "alice"


def test_a_tenant_without_a_tier_is_not_served() -> None:
    nobodys = TenantId("initech")
    for action in (
        message(nobodys),
        ChatGetStatusAction(tenant_id=nobodys, task_id=TaskId("t")),
        WebSocketSendAction(tenant_id=nobodys, session_id=S1, message_data={}),
        WebSocketBroadcastAction(tenant_id=nobodys, message_data={}),
    ):
        with pytest.raises(Forbidden):
            permitted(action, ANYONE, SETTINGS)
    assert tier_of(nobodys, Settings()).priority == "high"
