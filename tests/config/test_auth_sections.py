"""The settings of `auth`: discreet about secrets, and closed unless somebody opens them."""

import dataclasses

from config.auth_sections import ApiKeySettings, AuthSettings, JwtSettings
from config.settings import Settings


def test_secrets_are_in_no_repr() -> None:
    auth = AuthSettings(
        jwt=JwtSettings(key="canary"),
        api_keys=(ApiKeySettings(name="a", sha256="canary", tenant_id="b"),),
    )
    assert "canary" not in repr(auth)
    assert "canary" not in repr(dataclasses.replace(Settings(), auth=auth))


def test_nothing_is_let_in_by_default() -> None:
    auth = AuthSettings()
    assert not auth.allow_insecure
    assert (auth.jwt.algorithms, auth.api_keys) == ((), ())
