"""Credentials to callers: by token, by API key, or by neither where the mode is `none`."""

from config.settings import AuthSettings
from orchestrator.auth.caller import Caller
from orchestrator.auth.credentials import Credentials


class Authenticator:
    """Says who calls (contract, section 7). One for each instance."""

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings

    async def authenticate(self, credentials: Credentials) -> Caller:
        """The caller that the credentials belong to.

        Raises:
            Unauthorized: none are given where some are needed, or they are not good (any more).
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Stops what runs for it."""
