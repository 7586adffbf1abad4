"""Who calls, and what that caller may touch: the one place where this is decided (section 7)."""

from dataclasses import dataclass
from enum import StrEnum

from common.domain.errors import Forbidden, TaskNotFound
from common.domain.ids import SessionId, SessionKey, TenantId, UserId


class Scope(StrEnum):
    """What a token or key may be good for."""

    CHAT = "chat"  # chat, events and WebSocket
    PUSH = "push"  # /api/ws/*
    ADMIN = "admin"  # operations, and everything


class Access(StrEnum):
    """What an address asks of its callers; each handler names its own, and has no default."""

    OPEN = "open"
    KNOWN = "known"  # any caller, whatever it may do
    CHAT = "chat"
    PUSH = "push"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Someone whose token or key was found good. None stands for no restriction."""

    name: str  # what logs call it: the token's `sub`, or the name of the API key
    tenant_id: TenantId | None
    user_id: UserId | None
    sessions: frozenset[SessionId] | None
    scopes: frozenset[Scope]
    expires_at: float | None = None  # unix seconds, with the leeway

    def check_access(self, access: Access) -> None:
        """Raises Forbidden unless one of the caller's scopes is good for it."""
        if access in (Access.OPEN, Access.KNOWN) or Scope.ADMIN in self.scopes:
            return
        if Scope(access) not in self.scopes:
            raise Forbidden(f"This needs the scope `{access}`.")

    def check_tenant(self, tenant_id: TenantId) -> None:
        """Raises Forbidden for another tenant than the caller's."""
        if self.tenant_id not in (None, tenant_id):
            raise Forbidden("This caller belongs to another tenant.")

    def check_session(self, session: SessionKey) -> None:
        """Raises Forbidden for a session that is not one of the caller's."""
        self.check_tenant(session.tenant_id)
        if self.sessions is not None and session.session_id not in self.sessions:
            raise Forbidden("This caller may not use that session.")

    def check_whole_tenant(self, tenant_id: TenantId) -> None:
        """Raises Forbidden for another tenant, and for a caller of some sessions only."""
        self.check_tenant(tenant_id)
        if self.sessions is not None:
            raise Forbidden("This caller may use some sessions only.")

    def check_task_of(self, tenant_id: TenantId) -> None:
        """Raises TaskNotFound: whether another tenant has such a task is not told."""
        if self.tenant_id not in (None, tenant_id):
            raise TaskNotFound

    def sees(self, tenant_id: TenantId | None, session_id: SessionId | None = None) -> bool:
        """Whether something is the caller's to see; None: nobody can say whose it is."""
        if self.sessions is not None and session_id not in self.sessions:
            return False
        return self.tenant_id in (None, tenant_id)

    def user(self, claimed: UserId | None) -> UserId | None:
        """Who an action is from: the caller's own user, or the one it names if it is nobody's.

        Raises:
            Forbidden: the caller is somebody else.
        """
        if self.user_id is None or claimed in (None, self.user_id):
            return self.user_id or claimed
        raise Forbidden("This caller is another user.")

    def check_renewal(self, renewed: "Caller") -> None:
        """Raises Forbidden unless the other is the same: tenant, user, and name."""
        if (renewed.tenant_id, renewed.user_id, renewed.name) != (
            self.tenant_id,
            self.user_id,
            self.name,
        ):
            raise Forbidden("The new token is another caller's.")


ANYONE = Caller(name="anyone", tenant_id=None, user_id=None, sessions=None, scopes=frozenset(Scope))
"""Whoever calls where `auth.mode` is `none`."""
