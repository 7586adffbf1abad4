"""What a caller may touch; the whole of it over the wire: test_access_matrix.py."""

from dataclasses import replace

import pytest

from common.domain.errors import Forbidden, TaskNotFound
from common.domain.ids import SessionId, SessionKey, TenantId, UserId
from orchestrator.auth.caller import ANYONE, Access, Caller, Scope

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
ALICE = Caller(
    name="alice",
    tenant_id=ACME,
    user_id=UserId("alice"),
    sessions=None,
    scopes=frozenset({Scope.CHAT}),
)
BOUND = replace(ALICE, sessions=frozenset({SessionId("s-1")}))


def test_each_scope_is_good_for_its_own_and_admin_for_all() -> None:
    for scope in Scope:
        caller = replace(ALICE, scopes=frozenset({scope}))
        for access in Access:
            asks_none = access in (Access.OPEN, Access.KNOWN)
            if asks_none or scope in (Scope.ADMIN, Scope(access)):
                caller.check_access(access)
            else:
                with pytest.raises(Forbidden):
                    caller.check_access(access)


def test_sessions_are_those_of_the_tenant_or_some_of_them() -> None:
    ALICE.check_session(SessionKey(ACME, SessionId("any")))
    BOUND.check_session(SessionKey(ACME, SessionId("s-1")))
    for caller, tenant, session in (
        (ALICE, GLOBEX, "s-1"),
        (BOUND, ACME, "s-2"),
        (BOUND, GLOBEX, "s-1"),
    ):
        with pytest.raises(Forbidden):
            caller.check_session(SessionKey(tenant, SessionId(session)))


def test_who_has_some_sessions_has_not_the_whole_tenant() -> None:
    ALICE.check_whole_tenant(ACME)
    for caller, tenant in ((ALICE, GLOBEX), (BOUND, ACME)):
        with pytest.raises(Forbidden):
            caller.check_whole_tenant(tenant)


def test_tasks_of_another_tenant_are_not_there() -> None:
    ALICE.check_task_of(ACME)
    with pytest.raises(TaskNotFound):
        ALICE.check_task_of(GLOBEX)


def test_what_belongs_to_nobody_is_seen_by_those_of_all_tenants() -> None:
    assert ALICE.sees(ACME)
    assert ALICE.sees(ACME, SessionId("s"))
    assert BOUND.sees(ACME, SessionId("s-1"))
    assert not BOUND.sees(ACME, SessionId("s-2"))
    assert not BOUND.sees(ACME)
    assert not ALICE.sees(GLOBEX)
    assert not ALICE.sees(None)
    assert ANYONE.sees(None)


def test_a_user_is_nobody_else() -> None:
    assert ALICE.user(None) == ALICE.user(UserId("alice")) == "alice"
    with pytest.raises(Forbidden):
        ALICE.user(UserId("bob"))
    assert ANYONE.user(UserId("bob")) == "bob"
    assert ANYONE.user(None) is None


def test_a_renewal_is_of_the_same_tenant_and_user() -> None:
    ALICE.check_renewal(replace(ALICE, expires_at=1.0, sessions=frozenset(), scopes=frozenset()))
    for other in (
        replace(ALICE, tenant_id=GLOBEX),
        replace(ALICE, tenant_id=None),
        replace(ALICE, user_id=UserId("bob")),
        replace(ALICE, name="bob"),
    ):
        with pytest.raises(Forbidden):
            ALICE.check_renewal(other)
