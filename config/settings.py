"""All settings of an orchestrator, and how they are loaded (contract, section 8).

Read once, in `run.py`; each part of the service is given only its branch. They come from a YAML
file and from `ORCHESTRATOR_` variables, which win.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config import auth_rules, mistakes, rules
from config.auth_sections import AuthSettings
from config.mistakes import ConfigurationError, Mistakes
from config.reading import Reader
from config.rules import setting
from config.sections import (
    SHIPPED_TIERS,
    AgentSettings,
    CallbackSettings,
    ExecutionSettings,
    LoggingSettings,
    RedisSettings,
    ServerSettings,
    SessionSettings,
    TenantSettings,
    TierSettings,
    WebSocketSettings,
)
from config.sources import gather

__all__ = [
    "SHIPPED_TIERS",
    "AgentSettings",
    "AuthSettings",
    "CallbackSettings",
    "ConfigurationError",
    "ExecutionSettings",
    "LoggingSettings",
    "RedisSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "TenantSettings",
    "TierSettings",
    "WebSocketSettings",
    "load",
]


def _shipped_tiers() -> Mapping[str, TierSettings]:
    return dict(SHIPPED_TIERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of an orchestrator. `Settings()` has every default."""

    server: ServerSettings = field(default_factory=ServerSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    websocket: WebSocketSettings = field(default_factory=WebSocketSettings)
    sessions: SessionSettings = field(default_factory=SessionSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    callbacks: CallbackSettings = field(default_factory=CallbackSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    tiers: Mapping[str, TierSettings] = setting(
        _shipped_tiers,
        "Tiers by name, beside the shipped ones",
        names=rules.outside_id,
    )
    tenants: Mapping[str, TenantSettings] = setting(dict, "Tenants by id", names=rules.outside_id)
    default_tier: str | None = setting(
        "enterprise",
        "Tier of tenants that are not listed; null refuses them",
    )
    agents: Mapping[str, AgentSettings] = setting(
        dict, "Agents by id; empty: any agent_id is taken", names=rules.outside_id
    )
    logging: LoggingSettings = field(default_factory=LoggingSettings)

    def tier_of(self, tenant_id: str) -> TierSettings | None:
        """What a tenant may use; None for one that is refused."""
        listed = self.tenants.get(tenant_id)
        name = self.default_tier if listed is None else listed.tier
        return None if name is None else self.tiers[name]


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of a file and of the `ORCHESTRATOR_` variables, which win.

    Raises:
        ConfigurationError: something is wrong; it names every mistake, a clear line each, and
            never repeats a secret.
    """
    found = Mistakes()
    tree = gather(path, environ, Settings, found)
    settings = Reader(found).section(Settings, tree, ())
    for paths, check in TOGETHER:
        complaint = check(settings)
        if complaint and not any(map(found.concern, paths)):
            found.add(paths[0], complaint)
    if found.lines:
        raise ConfigurationError(found.lines)
    return settings


# --- What must hold between settings: the setting that is complained about stands first -----


def _clients_can_leave_in_time(settings: Settings) -> str | None:
    server, most = settings.server, settings.websocket.max_connections
    needed = most / server.reconnects_per_second
    if needed <= server.drain_seconds:
        return None
    return (
        f"sending {most} connections away at server.reconnects_per_second"
        f" {server.reconnects_per_second:g} takes {needed:g} s,"
        f" more than server.drain_seconds {server.drain_seconds:g}"
    )


def _default_timeout_is_allowed(settings: Settings) -> str | None:
    execution = settings.execution
    if execution.default_timeout <= execution.max_timeout:
        return None
    return f"must not exceed execution.max_timeout {execution.max_timeout:g}"


def _agents_timeouts_are_allowed(settings: Settings) -> str | None:
    most = settings.execution.max_timeout
    over = [name for name, agent in settings.agents.items() if (agent.timeout or 0) > most]
    return f"timeout of {over[0]} must not exceed execution.max_timeout {most:g}" if over else None


def _gap_outlasts_a_lost_worker(settings: Settings) -> str | None:
    visible = settings.execution.visibility_timeout
    if settings.callbacks.gap_timeout > visible:
        return None
    return f"must be more than execution.visibility_timeout {visible:g}"


def _pong_is_due_before_the_next_ping(settings: Settings) -> str | None:
    interval = settings.websocket.ping_interval
    if settings.websocket.ping_timeout <= interval:
        return None
    return f"must not exceed websocket.ping_interval {interval:g}"


def _tiers_are_known(settings: Settings) -> str | None:
    unknown = [id_ for id_, tenant in settings.tenants.items() if tenant.tier not in settings.tiers]
    if not unknown:
        return None
    known = ", ".join(settings.tiers)
    return f"tier of {unknown[0]} is not one of {known}"


def _default_tier_is_known(settings: Settings) -> str | None:
    if settings.default_tier is None or settings.default_tier in settings.tiers:
        return None
    return f"must be null or one of {', '.join(settings.tiers)}"


def _open_to_all_only_on_loopback(settings: Settings) -> str | None:
    auth, host = settings.auth, settings.server.host
    if auth.mode != ("none",) or auth.allow_insecure or rules.is_loopback(host):
        return None
    return (
        f"auth.mode none listens only on loopback, not on {mistakes.shown(host)};"
        " set auth.allow_insecure: true only where everyone who can reach it may do everything"
    )


def _of_auth(check: Callable[[AuthSettings], str | None]) -> Callable[[Settings], str | None]:
    return lambda settings: check(settings.auth)


TOGETHER: tuple[tuple[tuple[mistakes.Path, ...], Callable[[Settings], str | None]], ...] = (
    (
        (
            ("websocket", "max_connections"),
            ("server", "reconnects_per_second"),
            ("server", "drain_seconds"),
        ),
        _clients_can_leave_in_time,
    ),
    ((("execution", "default_timeout"), ("execution", "max_timeout")), _default_timeout_is_allowed),
    ((("agents",), ("execution", "max_timeout")), _agents_timeouts_are_allowed),
    (
        (("callbacks", "gap_timeout"), ("execution", "visibility_timeout")),
        _gap_outlasts_a_lost_worker,
    ),
    (
        (("websocket", "ping_timeout"), ("websocket", "ping_interval")),
        _pong_is_due_before_the_next_ping,
    ),
    ((("tenants",), ("tiers",)), _tiers_are_known),
    ((("default_tier",), ("tiers",)), _default_tier_is_known),
    ((("server", "host"), ("auth",)), _open_to_all_only_on_loopback),
    *((paths, _of_auth(check)) for paths, check in auth_rules.TOGETHER),
)
