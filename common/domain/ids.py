"""Names: what identifies a tenant, a session, a task (contract, section 1)."""

import re
import uuid
from typing import NamedTuple, NewType

TenantId = NewType("TenantId", str)
SessionId = NewType("SessionId", str)
AgentId = NewType("AgentId", str)
UserId = NewType("UserId", str)
TaskId = NewType("TaskId", str)

# Neither ':' nor braces: keys built from ids stay injective and keep their hash tag.
OUTSIDE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}")


class SessionKey(NamedTuple):
    """One conversation; it outlives its connections."""

    tenant_id: TenantId
    session_id: SessionId

    def __str__(self) -> str:
        """The session's one-word name, injective because ids contain no colon."""
        return f"{self.tenant_id}:{self.session_id}"


def new_id() -> str:
    """A fresh UUID, for actions and the tasks they become, epochs, connections and instances."""
    return str(uuid.uuid4())


def is_outside_id(value: str) -> bool:
    return OUTSIDE_ID.fullmatch(value) is not None
