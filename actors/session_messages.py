"""What is told to the actor of one connection, what it tells itself and its manager, and what it is
given at its start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.domain.actions import ChatAction
from common.domain.errors import OrchestratorError
from common.domain.ids import SessionKey
from common.domain.resume import ResumeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Who connected, and how."""

    connection_id: str
    session: SessionKey
    user_id: str | None
    request: ResumeRequest
    compact: bool
    expires_at: float | None = None  # unix seconds; None: never


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPolicy:
    """What all connections of an instance are told and held to."""

    instance_id: str
    ping_interval: float  # seconds
    max_message_bytes: int
    max_bad_frames: int
    send_buffer_bytes: int


# What the socket and the ConnectionManager tell a SessionActor.


@dataclass(frozen=True, slots=True)
class Command:
    """A well-formed client frame that asks for something."""

    id: str | None
    action: ChatAction


@dataclass(frozen=True, slots=True)
class Ping:
    """A client's own ping."""

    id: str | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """The client showed a new token, and it was found good: the connection may last longer."""

    id: str | None
    expires_at: float | None  # unix seconds


@dataclass(frozen=True, slots=True)
class Refused:
    """A client frame that cannot be served; a bad one counts towards the limit."""

    id: str | None
    error: OrchestratorError
    is_bad: bool


@dataclass(frozen=True, slots=True)
class Passing:
    """Entries for those who are connected, not kept."""

    entries: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Close:
    """The instance closes this connection."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class GoElsewhere:
    """This instance drains: the client is to come back after so long, to another one."""

    after_ms: int
    reason: str


class CaughtUp:
    """Asked by the socket: answered once all that was told before has been handled."""


class Doubt:
    """Something may have been missed: the log will tell."""


class SocketClosed:
    """The client is gone."""


# What a SessionActor tells itself.


class ReadLog:
    """The next page of the replay."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The router is done with a command."""

    id: str | None
    answer: Any  # what the router answers, or the error it refused with


@dataclass(frozen=True, slots=True)
class Left:
    """Told to the ConnectionManager: this connection is no more."""

    session: SessionKey
    connection_id: str
