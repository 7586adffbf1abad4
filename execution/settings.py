"""What a worker may be told, each with its unit and default."""

import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Raises ValueError for what cannot work."""

    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    key_prefix: str = "orchestrator:"
    concurrency: int = 16  # tasks at once
    name: str = field(default_factory=socket.gethostname)
    drain_seconds: float = 20.0  # that running tasks are given to finish when the worker stops
    socket_timeout: float = 2.0  # seconds within which Redis answers or counts as away
    orchestrator_url: str | None = None  # where `task.history()` asks
    orchestrator_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        if not 0 <= self.drain_seconds <= 86_400:
            raise ValueError(f"drain-seconds must be 0 to 86400, not {self.drain_seconds}")
        if not self.name:
            raise ValueError("name must not be empty")
        url = self.orchestrator_url
        if url is not None and urlsplit(url).scheme not in {"http", "https"}:
            raise ValueError(f"orchestrator-url must begin with http:// or https://, not {url!r}")


def redacted(url: str) -> str:
    """The URL as it may be shown: without its password, and without its query."""
    url = url.partition("?")[0]
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
