"""API keys: known only by their SHA-256, and compared in constant time (contract, section 7)."""

import hashlib
import hmac
from collections.abc import Sequence

from common.domain.ids import TenantId
from config.auth_sections import ApiKeySettings
from orchestrator.auth.caller import Caller, Scope
from orchestrator.auth.credentials import BadCredentials

LONGEST = 1024  # characters
ANY_TENANT = "*"


class ApiKeys:
    """The keys of back-ends that are configured.

    A plain hash is enough, as keys are random and long (`python run.py hash-key` makes them):
    there is nothing to be guessed that a slow hash would protect.
    """

    def __init__(self, settings: Sequence[ApiKeySettings]) -> None:
        self._callers = [(bytes.fromhex(each.sha256), _caller(each)) for each in settings]

    def caller(self, key: str) -> Caller:
        """Whose key it is. Takes the same time whichever of the keys it is, or if it is none.

        Raises:
            BadCredentials: nobody's.
        """
        found = None
        if len(key) <= LONGEST and key.isascii():
            digest = hashlib.sha256(key.encode()).digest()
            for known, caller in self._callers:
                if hmac.compare_digest(known, digest):
                    found = caller
        if found is None:
            raise BadCredentials("unknown_key")
        return found


def _caller(settings: ApiKeySettings) -> Caller:
    whose = settings.tenant_id
    return Caller(
        name=settings.name,
        tenant_id=None if whose == ANY_TENANT else TenantId(whose),
        user_id=None,
        sessions=None,
        scopes=frozenset(map(Scope, settings.scopes)),
    )
