"""Files and variables: what is read, what wins, what is ignored."""

from pathlib import Path

import pytest

from config.settings import ConfigurationError, load
from tests.support.configuration import mistakes_of, settings_of


def test_variables_win_over_the_file() -> None:
    settings = settings_of(
        "server: {port: 1, drain_seconds: 15}", ORCHESTRATOR_SERVER__PORT="2", OTHER="x"
    )
    assert (settings.server.port, settings.server.drain_seconds) == (2, 15)


def test_the_flat_spellings() -> None:
    settings = settings_of(
        "",
        ORCHESTRATOR_REDIS_URL="redis://redis:6379/1",
        ORCHESTRATOR_WEBSOCKET_PING_INTERVAL="20",
        ORCHESTRATOR_WEBSOCKET_PING_TIMEOUT="5.5",
        ORCHESTRATOR_MAX_WEBSOCKET_CONNECTIONS="5000",
        ORCHESTRATOR_WORKER_SLEEP_SECONDS="0.5",
        ORCHESTRATOR_HOST="localhost",
        ORCHESTRATOR_PORT="9000",
    )
    assert settings.redis.url == "redis://redis:6379/1"
    assert (settings.websocket.ping_interval, settings.websocket.ping_timeout) == (20, 5.5)
    assert settings.websocket.max_connections == 5000
    assert settings.callbacks.poll_seconds == 0.5
    assert (settings.server.host, settings.server.port) == ("localhost", 9000)


def test_two_underscores_descend() -> None:
    settings = settings_of(
        "agents: {echo: {timeout: 7}}",
        ORCHESTRATOR_AUTH__MODE="none",
        ORCHESTRATOR_AUTH__JWT__LEEWAY="30",
        ORCHESTRATOR_DEFAULT_TIER="enterprise",
        ORCHESTRATOR_AGENTS__ECHO__TENANTS="[acme, Other]",
        ORCHESTRATOR_AGENTS__OTHER__TIMEOUT="5",
    )
    assert settings.agents["echo"].tenants == ("acme", "Other")
    assert settings.agents["echo"].timeout == 7
    assert settings.agents["other"].timeout == 5


def test_values_are_read_as_yaml_but_text_as_it_stands() -> None:
    settings = settings_of(
        "",
        ORCHESTRATOR_REDIS__KEY_PREFIX="a:",
        ORCHESTRATOR_WEBSOCKET__COMPRESSION="yes",
        ORCHESTRATOR_WEBSOCKET__ALLOWED_ORIGINS='["https://a.example", http://b.example]',
        ORCHESTRATOR_LOGGING="{level: debug, format: console}",
        ORCHESTRATOR_LOGGING__SUPERVISION_FILE="null",
        ORCHESTRATOR_AGENTS="{Echo: {timeout: 5}}",
    )
    assert settings.redis.key_prefix == "a:"
    assert settings.websocket.compression is True
    assert settings.websocket.allowed_origins == ("https://a.example", "http://b.example")
    assert (settings.logging.level, settings.logging.format) == ("debug", "console")
    assert settings.logging.supervision_file is None
    assert settings.agents["Echo"].timeout == 5
    assert settings_of("", ORCHESTRATOR_WEBSOCKET__ALLOWED_ORIGINS="*").websocket.allowed_origins


def test_an_inner_variable_wins_over_an_outer_one() -> None:
    settings = settings_of(
        "logging: {level: error}",
        ORCHESTRATOR_LOGGING__LEVEL="warning",
        ORCHESTRATOR_LOGGING="{level: debug, format: console}",
    )
    assert (settings.logging.level, settings.logging.format) == ("warning", "console")


def test_what_kubernetes_injects_for_a_service_of_that_name_is_ignored() -> None:
    settings = settings_of(
        "server: {port: 5}",
        ORCHESTRATOR_SERVICE_HOST="10.0.0.1",
        ORCHESTRATOR_SERVICE_PORT_HTTP="80",
        ORCHESTRATOR_PORT="tcp://10.0.0.1:80",
        ORCHESTRATOR_PORT_80_TCP_PROTO="tcp",
    )
    assert settings.server.port == 5


@pytest.mark.parametrize(
    ("variable", "text", "mistake"),
    [
        ("ORCHESTRATOR_PORT", "http", "server.port: must be a whole number from 0 to 65535, not"),
        (
            "ORCHESTRATOR_PORT",
            "",
            "server.port: must be a whole number from 0 to 65535, not nothing",
        ),
        ("ORCHESTRATOR_SERVER__PORT", "[", "server.port: is not YAML: expected the node content"),
        ("ORCHESTRATOR_SERVER", "5", "server: must be a mapping of names to values, not"),
        ("ORCHESTRATOR_AUTH_MODE", "x", "unknown variable; did you mean ORCHESTRATOR_AUTH__MODE?"),
        (
            "ORCHESTRATOR_WEBSOCKET__PING",
            "1",
            "unknown variable; did you mean ORCHESTRATOR_WEBSOCKE",
        ),
        ("ORCHESTRATOR_", "1", "unknown variable"),
        (
            "ORCHESTRATOR_SERVER__PORT__X",
            "1",
            "unknown variable; did you mean ORCHESTRATOR_SERVER__",
        ),
        ("ORCHESTRATOR_AGENTS____TIMEOUT", "1", "unknown variable"),
        (
            "ORCHESTRATOR_WEBSOCKET__ALLOWED_ORIGINS",
            "[*]",
            "websocket.allowed_origins: is not YAML",
        ),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(variable: str, text: str, mistake: str) -> None:
    (line,) = mistakes_of("server: {port: 1}", **{variable: text})
    assert line.startswith(f"{variable}: {mistake}")


def test_two_variables_for_one_setting_must_agree() -> None:
    assert mistakes_of("", ORCHESTRATOR_PORT="1", ORCHESTRATOR_SERVER__PORT="2") == [
        "ORCHESTRATOR_SERVER__PORT: ORCHESTRATOR_PORT sets server.port otherwise"
    ]
    assert mistakes_of("", ORCHESTRATOR_PORT="1", ORCHESTRATOR_SERVER__PORT="1") == []


def test_a_variable_into_a_section_that_is_none_leaves_the_files_mistake() -> None:
    (line,) = mistakes_of("server: 5", ORCHESTRATOR_PORT="1")
    assert line.startswith("test.yaml:1: server: must be a mapping")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("server:\n\tport: 1", "test.yaml:2: is not YAML: tabs are not allowed here, indent with"),
        ("- a", "test.yaml: must be a mapping of sections, not a list"),
        ("a", "test.yaml: must be a mapping of sections, not a single value"),
        ("server: {port: 1", "test.yaml:1: is not YAML: expected ',' or '}'"),
        ("a: b: c", "test.yaml:1: is not YAML: mapping values are not allowed here"),
        ("server: {}\n---\nserver: {}", "test.yaml:2: is not YAML: but found another document"),
        ("? [a]\n: b", "test.yaml:1: is not YAML: found unhashable key"),
        ("a: !!python/object:os.system x", "test.yaml:1: is not YAML: could not determine a"),
        ("a: " + "[" * 5000, "test.yaml: is nested too deeply"),
        ("a: \x07", "test.yaml: is not YAML: special characters are not allowed"),
        ("a: 0x_", "test.yaml: has a value that cannot be read"),
        ("a: &a [*a]", "test.yaml:1: a: unknown setting"),
    ],
)
def test_what_is_no_yaml_is_told_in_one_line(text: str, mistake: str) -> None:
    (line,) = mistakes_of(text)
    assert line.startswith(mistake)


def test_names_given_twice_are_told_with_both_lines() -> None:
    text = (
        "server:\n  port: 1\n  host: localhost\n  port: 2\nserver: {processes: 1, processes: 1}\n"
    )
    assert mistakes_of(text) == [
        "test.yaml:4: server.port: given twice, first in line 2",
        "test.yaml:5: server.processes: given twice, first in line 5",
        "test.yaml:5: server: given twice, first in line 1",
    ]


def test_merged_mappings_are_no_repetition() -> None:
    text = "agents:\n  a: &a {timeout: 5}\n  b: {<<: *a, tenants: [x]}\n"
    assert settings_of(text).agents["b"].timeout == 5


def test_dates_are_text_like_any_other() -> None:
    assert mistakes_of("logging: {supervision_file: 2026-99-99}") == []


@pytest.mark.parametrize(
    ("content", "mistake"),
    [(b"\xff\xfe\x00", "is not UTF-8 text"), (None, "cannot be read: Is a directory")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, mistake: str) -> None:
    file = tmp_path / "a.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        load(file, {})
    assert error.value.mistakes == [f"{file}: {mistake}"]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfserver: {port: 3}\n")
    assert load(tmp_path / "a.yaml", {}).server.port == 3
