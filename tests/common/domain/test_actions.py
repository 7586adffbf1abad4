"""Domain Actions are values with the words of the contract."""

import dataclasses
from uuid import UUID

import pytest

from common.domain.actions import (
    ChatCancelTaskAction,
    ChatGetStatusAction,
    ChatSendMessageAction,
    IfBusy,
    Priority,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.ids import AgentId, SessionId, SessionKey, TaskId, TenantId

TENANT, SESSION = TenantId("acme"), SessionId("s-1")


def send() -> ChatSendMessageAction:
    return ChatSendMessageAction(
        tenant_id=TENANT, session_id=SESSION, agent_id=AgentId("a"), message="m", timeout=1.0
    )


def test_each_is_called_what_the_contract_calls_it() -> None:
    assert [
        kind.action_type
        for kind in (
            ChatSendMessageAction,
            ChatGetStatusAction,
            ChatCancelTaskAction,
            WebSocketSendAction,
            WebSocketBroadcastAction,
        )
    ] == [
        "chat.send_message",
        "chat.get_status",
        "chat.cancel_task",
        "websocket.send_message",
        "websocket.broadcast",
    ]
    assert list(Priority) == ["high", "normal", "low"]
    assert set(IfBusy) == {"enqueue", "parallel", "reject", "interrupt"}


def test_a_message_becomes_the_task_of_its_own_id() -> None:
    action = send()
    assert str(UUID(action.task_id)) == action.task_id
    assert action.task_id == action.action_id != send().action_id


def test_an_action_knows_its_session() -> None:
    push = WebSocketSendAction(tenant_id=TENANT, session_id=SESSION, message_data={})
    assert push.session == send().session == SessionKey(TENANT, SESSION)


def test_an_action_does_not_change() -> None:
    action = ChatGetStatusAction(tenant_id=TENANT, task_id=TaskId("t"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        action.task_id = TaskId("u")  # type: ignore[misc]


def test_what_is_left_out_is_as_the_contract_says() -> None:
    action = send()
    assert (action.message_type, action.priority, action.user_id) == ("text", "normal", None)
    assert action.metadata == action.context == action.user_info == {}
    broadcast = WebSocketBroadcastAction(tenant_id=TENANT, message_data={})
    assert broadcast.message_type == "broadcast"
    assert broadcast.target_sessions is None
