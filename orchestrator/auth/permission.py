"""Actions as their callers may have them: the one place where what a caller asks is judged."""

from dataclasses import replace
from typing import TypeVar, assert_never

from common.domain.actions import (
    ChatAction,
    ChatCancelTaskAction,
    ChatGetStatusAction,
    ChatSendMessageAction,
    Priority,
    PushAction,
    WebSocketBroadcastAction,
    WebSocketSendAction,
)
from common.domain.errors import Forbidden
from common.domain.ids import SessionKey, TenantId
from config.settings import Settings, TierSettings
from orchestrator.auth.caller import Caller

Action = TypeVar("Action", bound=ChatAction | PushAction)

HIGHEST_FIRST = list(Priority)


def permitted(action: Action, caller: Caller, settings: Settings) -> Action:
    """The action, as this caller may have it done (contract, sections 2 and 7).

    Raises:
        Forbidden: its tenant, session or user is not the caller's, or its tenant is refused.
        TaskNotFound: it is about a task of another tenant.
    """
    match action:
        case ChatSendMessageAction():
            caller.check_session(action.session)
            return replace(
                action,
                user_id=caller.user(action.user_id),
                priority=allowed_priority(action, settings),
            )
        case ChatGetStatusAction() | ChatCancelTaskAction():
            caller.check_task_of(action.tenant_id)
            tier_of(action.tenant_id, settings)
            return replace(action, within=caller.sessions)
        case WebSocketSendAction():
            caller.check_session(action.session)
        case WebSocketBroadcastAction(target_sessions=None):
            caller.check_whole_tenant(action.tenant_id)
        case WebSocketBroadcastAction():
            for session_id in action.target_sessions or ():
                caller.check_session(SessionKey(action.tenant_id, session_id))
        case _:
            assert_never(action)
    tier_of(action.tenant_id, settings)
    return replace(action, user_id=caller.user(action.user_id))


def allowed_priority(action: ChatSendMessageAction, settings: Settings) -> Priority:
    """The message's priority; one above that of its tenant's tier is lowered to it.

    Raises:
        Forbidden: the tenant is refused.
    """
    highest = Priority(tier_of(action.tenant_id, settings).priority)
    return max(action.priority, highest, key=HIGHEST_FIRST.index)


def tier_of(tenant_id: TenantId, settings: Settings) -> TierSettings:
    """What a tenant may use.

    Raises:
        Forbidden: the tenant is refused (`default_tier` is null, and it is not listed).
    """
    tier = settings.tier_of(tenant_id)
    if tier is None:
        raise Forbidden("This tenant is not served here.")
    return tier
