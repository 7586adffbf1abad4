"""The sections of the settings, as frozen values; each setting with its unit, limits and help.

The table of section 8 of the contract, in the same order; `auth` has `config/auth_sections.py`. How
they are read: `config/settings.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from config import rules
from config.rules import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the orchestrator listens, and how it stops."""

    host: str = setting(
        "127.0.0.1",
        "Address to listen on",
        check=rules.not_blank,
        variable="ORCHESTRATOR_HOST",
    )
    port: int = setting(
        8001,
        "TCP port to listen on; 0 takes any free one",
        at_most=65535,
        variable="ORCHESTRATOR_PORT",
    )
    processes: int = setting(
        1,
        "Orchestrator processes started by one command",
        at_least=1,
        at_most=1024,
        comes_with="several processes",
    )
    max_body_bytes: int = setting(
        1048576, "Largest request body", unit="bytes", at_least=1024, at_most=2**30
    )
    drain_seconds: float = setting(
        20.0, "How long a stop may take until connections and tasks are handed over", unit="seconds"
    )
    reconnects_per_second: float = setting(
        1000.0,
        "How many clients a draining instance sends away each second;"
        " websocket.max_connections divided by it must not exceed drain_seconds",
        above=0,
    )
    trusted_proxies: tuple[str, ...] = setting(
        (),
        "Addresses or networks of proxies whose X-Forwarded-For is believed",
        check=rules.networks,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """The Redis (6.2 or later) that instances share, and where everything is kept."""

    url: str = setting(
        "embedded",
        "URL (redis://, rediss:// or unix://), or `embedded`: a private Redis server is started"
        " as a child process. TLS is always verified; options after a `?`: ssl_ca_certs for a CA"
        " of your own, ssl_certfile and ssl_keyfile for a certificate to show",
        check=rules.redis_url,
        secret=True,
        variable="ORCHESTRATOR_REDIS_URL",
    )
    key_prefix: str = setting(
        "orchestrator:", "How every key begins; without braces", check=rules.no_braces
    )
    socket_timeout: float = setting(
        2.0, "How long Redis may take to answer", unit="seconds", above=0, at_most=60
    )

    @property
    def is_embedded(self) -> bool:
        return self.url == "embedded"

    @property
    def address(self) -> str:
        """The URL as logs may show it: without user, password and options."""
        if self.is_embedded:
            return self.url
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketSettings:
    """Connections of clients."""

    ping_interval: float = setting(
        30.0,
        "How often a connection is pinged",
        unit="seconds",
        above=0,
        variable="ORCHESTRATOR_WEBSOCKET_PING_INTERVAL",
    )
    ping_timeout: float = setting(
        10.0,
        "How long a pong may take before the connection is closed; at most ping_interval",
        unit="seconds",
        above=0,
        variable="ORCHESTRATOR_WEBSOCKET_PING_TIMEOUT",
    )
    max_connections: int = setting(
        10000,
        "Connections an instance takes at once",
        at_least=1,
        variable="ORCHESTRATOR_MAX_WEBSOCKET_CONNECTIONS",
    )
    max_connections_per_address: int | None = setting(
        1000,
        "Connections of one address (of IPv6: one /64) to all instances; null: unlimited",
        at_least=1,
    )
    max_bad_handshakes_per_minute: int | None = setting(
        60,
        "Refused upgrades (400, 401, 403, 404) of one address within a minute,"
        " after which it gets 429 until that is over; null: unlimited",
        at_least=1,
    )
    max_frames_per_second: int | None = setting(
        1000,
        "Frames one client may send, as many at once; more close its connection (4429);"
        " null: unlimited",
        at_least=1,
    )
    max_message_bytes: int = setting(
        262144, "Largest frame a client may send", unit="bytes", at_least=1024, at_most=2**30
    )
    max_bad_frames: int = setting(
        20, "Bad frames in a row after which a connection is closed", at_least=1
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        'Origins of pages that may connect; empty: only the same origin as Host; ["*"]: all',
        check=rules.origins,
    )
    send_buffer_bytes: int = setting(
        1048576,
        "What may wait for a slow reader before its connection is closed;"
        " a single frame may exceed it",
        unit="bytes",
        at_least=1024,
        at_most=2**30,
    )
    compression: bool = setting(
        False, "Offer permessage-deflate; costs some ten times the memory of a connection"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """The logs of sessions."""

    max_events: int = setting(10000, "Newest events of a session that are kept", at_least=1)
    ttl: float = setting(
        86400.0, "How long a session is kept after its last event", unit="seconds", at_least=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSettings:
    """Tasks, and the workers that run them."""

    default_timeout: float = setting(
        300.0, "Time a task gets if its message names none", unit="seconds", at_least=1
    )
    max_timeout: float = setting(
        3600.0, "The most a message may ask for", unit="seconds", at_least=1, at_most=43200
    )
    max_wait: float = setting(
        3600.0,
        "How long a task may wait for its turn",
        unit="seconds",
        above=0,
    )
    prefetch: int = setting(16, "Tasks in the work streams that no worker has taken", at_least=1)
    visibility_timeout: float = setting(
        60.0,
        "How long a taken task may go without a sign of life before another worker gets it",
        unit="seconds",
        at_least=0.1,
    )
    max_attempts: int = setting(3, "Runs a task gets", at_least=1, at_most=1000)
    retry_backoff: float = setting(
        1.0,
        "Pause before a second attempt; doubles each time, up to 30",
        unit="seconds",
        at_most=30,
    )
    cancel_grace: float = setting(
        10.0, "How long a worker may take to stop a cancelled task", unit="seconds"
    )
    embedded_worker: bool = setting(
        False, "Start an execution worker with the demo agents as a child process"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSettings:
    """Reading what the execution service reports."""

    batch: int = setting(512, "Callbacks read at once", at_least=1, at_most=10000)
    poll_seconds: float = setting(
        1.0,
        "Longest one blocking read of a callback worker waits",
        unit="seconds",
        above=0,
        at_most=60,
        variable="ORCHESTRATOR_WORKER_SLEEP_SECONDS",
    )
    claim_idle: float = setting(
        5.0,
        "How long a callback may lie in an instance's hands before another takes it over",
        unit="seconds",
        above=0,
    )
    gap_timeout: float = setting(
        90.0,
        "How long a missing callback is waited for; more than execution.visibility_timeout",
        unit="seconds",
        above=0,
    )
    max_bytes: int = setting(
        1048576, "Largest callback", unit="bytes", at_least=1024, at_most=2**29
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSettings:
    """What the tenants of a tier may use; null is unlimited."""

    requests_per_minute: int | None = setting(None, "Messages accepted a minute", at_least=1)
    requests_per_hour: int | None = setting(None, "Messages accepted an hour", at_least=1)
    tokens_per_day: int | None = setting(None, "Tokens used a UTC day", at_least=1)
    max_queued: int | None = setting(None, "Tasks that wait", at_least=1)
    max_running: int | None = setting(None, "Tasks handed to workers", at_least=1)
    max_connections: int | None = setting(None, "Connections of a tenant", at_least=1)
    weight: float = setting(1.0, "Share of turns among busy tenants", at_least=0.001, at_most=1000)
    priority: str = setting(
        "high", "Highest priority a message may ask for", choices=("high", "normal", "low")
    )


def _tier(
    minute: int | None, hour: int | None, tokens: int | None, queued: int, running: int | None,
    priority: str,
) -> TierSettings:  # fmt: skip
    return TierSettings(
        requests_per_minute=minute,
        requests_per_hour=hour,
        tokens_per_day=tokens,
        max_queued=queued,
        max_running=running,
        priority=priority,
    )


SHIPPED_TIERS: Mapping[str, TierSettings] = {
    "free": _tier(10, 100, 5000, 5, 1, "low"),
    "starter": _tier(30, 500, 50000, 20, 5, "normal"),
    "pro": _tier(60, 2000, 500000, 50, 20, "high"),
    "enterprise": _tier(None, None, None, 10000, None, "high"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """A customer."""

    tier: str = setting("", "Name of its tier", required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """An agent that may be asked for; where any is listed, others are not known."""

    tenants: tuple[str, ...] | None = setting(
        None, "Tenants it serves; null: all", check=rules.outside_ids
    )
    if_busy: str | None = setting(
        None,
        "What happens to a message whose session has an open task; null: enqueue",
        choices=("enqueue", "parallel", "reject", "interrupt"),
    )
    timeout: float | None = setting(
        None,
        "Time its tasks get if the message names none; null: execution.default_timeout",
        unit="seconds",
        at_least=1,
        at_most=43200,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """What is logged, and where."""

    level: str = setting(
        "info",
        "Least serious lines that are written",
        choices=("debug", "info", "warning", "error", "critical"),
    )
    format: str = setting(
        "json", "json for machines, console for people", choices=("json", "console")
    )
    supervision_file: str | None = setting(
        None,
        "File that supervision lines are written to as well, as JSON",
        check=rules.not_a_folder,
    )
