"""All settings together: defaults, the shipped files, what must hold between settings."""

from pathlib import Path

import pytest

from config.settings import SHIPPED_TIERS, ConfigurationError, Settings, load
from tests.support.configuration import mistakes_of, settings_of
from tests.support.processes import PROJECT


def test_an_empty_file_gives_every_default() -> None:
    for text in ("", "# nothing\n", "---\n", "server:\nagents:\n"):
        assert settings_of(text) == Settings()


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    server, sockets, execution = settings.server, settings.websocket, settings.execution
    assert (server.host, server.port, server.processes) == ("127.0.0.1", 8001, 1)
    assert (server.max_body_bytes, server.drain_seconds) == (1048576, 20)
    assert (server.reconnects_per_second, server.trusted_proxies) == (1000, ())
    redis = settings.redis
    assert (redis.url, redis.key_prefix, redis.socket_timeout) == ("embedded", "orchestrator:", 2)
    assert (sockets.ping_interval, sockets.ping_timeout) == (30, 10)
    assert (sockets.max_connections, sockets.max_message_bytes) == (10000, 262144)
    assert (sockets.max_bad_frames, sockets.allowed_origins) == (20, ())
    assert (sockets.max_connections_per_address, sockets.max_frames_per_second) == (1000, 1000)
    assert sockets.max_bad_handshakes_per_minute == 60
    assert (sockets.send_buffer_bytes, sockets.compression) == (1048576, False)
    assert (settings.sessions.max_events, settings.sessions.ttl) == (10000, 86400)
    assert (execution.default_timeout, execution.max_timeout) == (300, 3600)
    assert (execution.max_wait, execution.prefetch) == (3600, 16)
    assert (execution.visibility_timeout, execution.max_attempts) == (60, 3)
    assert (execution.retry_backoff, execution.cancel_grace) == (1, 10)
    assert execution.embedded_worker is False
    callbacks = settings.callbacks
    assert (callbacks.batch, callbacks.poll_seconds, callbacks.claim_idle) == (512, 1, 5)
    assert (callbacks.gap_timeout, callbacks.max_bytes) == (90, 1048576)
    assert (settings.auth.mode, settings.auth.allow_insecure) == (("none",), False)
    assert (settings.auth.jwt.leeway, settings.auth.api_keys) == (30, ())
    assert (settings.tenants, settings.default_tier, settings.agents) == ({}, "enterprise", {})
    logging = settings.logging
    assert (logging.level, logging.format, logging.supervision_file) == ("info", "json", None)


def test_the_shipped_tiers_are_those_of_the_contract() -> None:
    assert Settings().tiers == SHIPPED_TIERS
    assert {
        name: (
            tier.requests_per_minute,
            tier.requests_per_hour,
            tier.tokens_per_day,
            tier.max_queued,
            tier.max_running,
            tier.priority,
        )
        for name, tier in SHIPPED_TIERS.items()
    } == {
        "free": (10, 100, 5000, 5, 1, "low"),
        "starter": (30, 500, 50000, 20, 5, "normal"),
        "pro": (60, 2000, 500000, 50, 20, "high"),
        "enterprise": (None, None, None, 10000, None, "high"),
    }


def test_the_file_for_development_starts_everything_here() -> None:
    settings = load(PROJECT / "config/dev.yaml", {})
    assert settings.redis.is_embedded
    assert settings.execution.embedded_worker
    assert settings.server.port == 8001
    assert settings.logging.format == "console"


def test_the_file_for_production_starts_unchanged_on_loopback() -> None:
    settings = load(PROJECT / "config/prod.yaml", {})
    assert settings.redis.url == "redis://127.0.0.1:6379/0"
    assert not settings.execution.embedded_worker
    assert settings.server.host == "127.0.0.1"
    assert settings.logging.format == "json"


def test_every_mistake_is_told_at_once_a_line_each() -> None:
    text = "server: {port: 70000, prot: 1}\nwebsocket: {compression: maybe}\n"
    assert mistakes_of(text, ORCHESTRATOR_NONSENSE="1") == [
        "ORCHESTRATOR_NONSENSE: unknown variable",
        "test.yaml:1: server.prot: unknown setting; did you mean server.port?",
        "test.yaml:1: server.port: must be a whole number from 0 to 65535, not 70000",
        "test.yaml:2: websocket.compression: must be true or false, not 'maybe'",
    ]


def test_the_error_itself_reads_as_its_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        load(tmp_path / "missing.yaml", {"ORCHESTRATOR_NONSENSE": ""})
    assert str(error.value).splitlines() == error.value.mistakes
    assert error.value.mistakes == [
        f"{tmp_path}/missing.yaml: cannot be read: No such file or directory",
        "ORCHESTRATOR_NONSENSE: unknown variable",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "websocket: {max_connections: 30000}",
            "test.yaml:1: websocket.max_connections: sending 30000 connections away at"
            " server.reconnects_per_second 1000 takes 30 s, more than server.drain_seconds 20",
        ),
        (
            "server: {drain_seconds: 5}",
            "websocket.max_connections: sending 10000 connections away at"
            " server.reconnects_per_second 1000 takes 10 s, more than server.drain_seconds 5",
        ),
        (
            "execution: {max_timeout: 200}",
            "test.yaml:1: execution.default_timeout: must not exceed execution.max_timeout 200",
        ),
        (
            "execution: {max_timeout: 43201}",
            "test.yaml:1: execution.max_timeout:"
            " must be a number of seconds from 1 to 43200, not 43201",
        ),
        (
            "agents: {slow: {timeout: 4000}}",
            "test.yaml:1: agents: timeout of slow must not exceed execution.max_timeout 3600",
        ),
        (
            "execution: {visibility_timeout: 90}",
            "callbacks.gap_timeout: must be more than execution.visibility_timeout 90",
        ),
        (
            "websocket: {ping_interval: 9}",
            "test.yaml:1: websocket.ping_timeout: must not exceed websocket.ping_interval 9",
        ),
        (
            "server: {host: 0.0.0.0}",
            "test.yaml:1: server.host: auth.mode none listens only on loopback, not on '0.0.0.0';"
            " set auth.allow_insecure: true only where everyone who can reach it may do everything",
        ),
    ],
)
def test_settings_must_fit_each_other(text: str, mistake: str) -> None:
    assert mistakes_of(text) == [mistake]


@pytest.mark.parametrize(
    "text",
    [
        "websocket: {max_connections: 30000}\nserver: {reconnects_per_second: 1500}",
        "websocket: {ping_interval: 9, ping_timeout: 9}",
        "execution: {default_timeout: 3600}",
        "server: {host: localhost}",
        'server: {host: "::1"}',
        "server: {host: 127.9.9.9}",
        "server: {host: 0.0.0.0}\nauth: {allow_insecure: true}",
    ],
)
def test_settings_that_fit_are_taken(text: str) -> None:
    assert mistakes_of(text) == []


def test_a_wrong_value_is_not_complained_about_twice() -> None:
    assert mistakes_of("execution: {max_timeout: soon, default_timeout: 4000}") == [
        "test.yaml:1: execution.max_timeout: must be a number of seconds from 1 to 43200,"
        " not 'soon'"
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "server: {processes: 2}",
            "server.processes: {} (several processes); for now it must be 1",
        ),
    ],
)
def test_what_a_later_version_brings_is_refused(text: str, mistake: str) -> None:
    assert mistakes_of(text) == [f"test.yaml:1: {mistake.format('comes with a later version')}"]


@pytest.mark.parametrize(
    "text",
    [
        "auth: {mode: none}",
        "auth: {mode: [none], api_keys: [], jwt: {}}",
        "tiers: {gold: {}}\ntenants: {a: {tier: gold}}\ndefault_tier: null",
        "tiers: {}\ntenants: {}\ndefault_tier: enterprise",
        "agents: {echo: {if_busy: interrupt}}",
        "agents: {echo: {tenants: [acme], timeout: 5}}",
        "agents: {echo: }",
        "server: {processes: 1}",
        "execution: {prefetch: 32, max_wait: 60, retry_backoff: 2}",
    ],
)
def test_what_is_there_already_is_taken(text: str) -> None:
    assert mistakes_of(text) == []


def test_the_documentation_of_production_is_true_about_containers() -> None:
    variables = {"ORCHESTRATOR_HOST": "0.0.0.0", "ORCHESTRATOR_AUTH__ALLOW_INSECURE": "true"}
    assert load(PROJECT / "config/prod.yaml", variables).server.host == "0.0.0.0"
