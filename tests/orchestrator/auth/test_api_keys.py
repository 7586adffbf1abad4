"""API keys: whose they are."""

import hashlib

import pytest

from common.domain.errors import Unauthorized
from common.domain.ids import TenantId
from config.auth_sections import ApiKeySettings
from orchestrator.auth.api_keys import LONGEST, ApiKeys
from orchestrator.auth.caller import Caller, Scope


def entry(key: str, name: str, tenant_id: str = "acme", *scopes: str) -> ApiKeySettings:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return ApiKeySettings(name=name, sha256=digest, tenant_id=tenant_id, scopes=scopes or ("chat",))


KEYS = ApiKeys(
    [
        entry("key-of-acme", "acme-backend"),
        entry("key-of-all", "operator", "*", "admin", "push"),
        entry("k" * LONGEST, "long"),
    ]
)


def test_a_key_has_its_tenant_and_its_scopes() -> None:
    assert KEYS.caller("key-of-acme") == Caller(
        name="acme-backend",
        tenant_id=TenantId("acme"),
        user_id=None,
        sessions=None,
        scopes=frozenset({Scope.CHAT}),
        expires_at=None,
    )


def test_a_star_stands_for_every_tenant() -> None:
    operator = KEYS.caller("key-of-all")
    assert operator.tenant_id is None
    assert operator.scopes == {Scope.ADMIN, Scope.PUSH}


def test_every_key_of_the_list_is_found_whatever_its_place() -> None:
    names = [KEYS.caller(key).name for key in ("key-of-acme", "key-of-all", "k" * LONGEST)]
    assert names == ["acme-backend", "operator", "long"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "key-of-acm",
        "key-of-acme ",
        "KEY-OF-ACME",
        hashlib.sha256(b"key-of-acme").hexdigest(),  # what the settings tell is no key
        "k" * (LONGEST + 1),
        "kéy",
        "\ud800",
        "*",
    ],
)
def test_a_key_that_is_nobodys_is_refused(key: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.caller(key)
    assert caught.value.detail == "A valid token or key is needed."


def test_without_keys_none_is_good() -> None:
    with pytest.raises(Unauthorized):
        ApiKeys([]).caller("key-of-acme")


def test_all_hashes_are_compared_in_constant_time_even_after_a_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looks on, rather than measure: a stop-watch would tell of the machine's other work."""
    import hmac

    compared = []

    def look_on(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr(hmac, "compare_digest", look_on)
    for key in ("key-of-acme", "key-of-all", "nobody's"):
        compared.clear()
        try:
            KEYS.caller(key)
        except Unauthorized:
            assert key == "nobody's"
        assert len(compared) == 3
