"""Callers of an instance that asks for tokens and keys: its settings, and what they show."""

import hashlib
import time
from typing import Any

import jwt

from tests.support.canary import CANARY

KEY = f"{CANARY} for tests that is long enough to be one"
OPERATOR_KEY = f"operator-of-all-tenants-{CANARY}-0123456789abcdef"

# `running_service(url, prefix, auth=AUTH)`. No leeway, so that tests may see tokens expire.
AUTH = {
    "mode": ["jwt", "api_key"],
    "jwt": {"algorithms": ["HS256"], "key": KEY, "leeway": 0},
    "api_keys": [
        {
            "name": "operator",
            "sha256": hashlib.sha256(OPERATOR_KEY.encode()).hexdigest(),
            "tenant_id": "*",
            "scopes": ["admin"],
        }
    ],
}


def token(
    tenant: str = "acme",
    user: str = "alice",
    scope: str = "chat push",
    expires_in: float = 600.0,
    **claims: Any,
) -> str:
    """A genuine token; `sessions=[…]` binds it to some."""
    return jwt.encode(
        {
            "tenant_id": tenant,
            "sub": user,
            "scope": scope,
            "exp": time.time() + expires_in,
            **claims,
        },
        KEY,
        algorithm="HS256",
    )


def bearer(shown: str) -> dict[str, str]:
    """The header that shows a token or key."""
    return {"Authorization": f"Bearer {shown}"}
