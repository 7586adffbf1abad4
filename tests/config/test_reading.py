"""From mappings, lists and scalars to settings."""

import pytest

from config.sections import SHIPPED_TIERS, TierSettings
from tests.support.configuration import mistakes_of, settings_of


def test_numbers_of_seconds_may_be_whole_or_not() -> None:
    settings = settings_of("websocket: {ping_interval: 25, ping_timeout: 2.5}")
    assert (settings.websocket.ping_interval, settings.websocket.ping_timeout) == (25.0, 2.5)
    assert isinstance(settings.websocket.ping_interval, float)


def test_one_alone_is_a_list_of_one() -> None:
    settings = settings_of('websocket: {allowed_origins: "*"}\nagents: {echo: {tenants: acme}}')
    assert settings.websocket.allowed_origins == ("*",)
    assert settings.agents["echo"].tenants == ("acme",)


def test_null_is_an_empty_section_list_or_mapping_but_no_number() -> None:
    assert mistakes_of("server:\nwebsocket: {allowed_origins: }\nagents:\n") == []
    assert len(mistakes_of("server: {port: }")) == 1


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("server: 8001", "server: must be a mapping of names to values, not a single value"),
        ("server: [a]", "server: must be a mapping of names to values, not a list"),
        ("agents: {a: b}", "agents.a: must be a mapping of names to values, not a single value"),
        ("agents: {7: {}}", "agents: the name 7 is no text; put it in quotes"),
        ("agents: {'a b': {}}", "agents.a b: must be an id: 1 to 128 letters, digits and _ . @ -,"),
        ("websocket: {allowed_origins: 5}", "websocket.allowed_origins: must be a list, not 5"),
        ("websocket: {allowed_origins: {a: b}}", "websocket.allowed_origins: must be a list, not"),
        ("websocket: {allowed_origins: [1]}", "websocket.allowed_origins.0: must be text, not 1"),
        ("wesocket: {}", "wesocket: unknown setting; did you mean websocket?"),
        (
            "ping_interval: 3",
            "ping_interval: unknown setting; did you mean websocket.ping_interval",
        ),
        ("zzz: 3", "zzz: unknown setting"),
    ],
)
def test_what_cannot_be_read(text: str, mistake: str) -> None:
    (line,) = mistakes_of(text)
    assert line.startswith(f"test.yaml:1: {mistake}")


def test_what_is_listed_must_be_complete() -> None:
    lines = mistakes_of("auth:\n  api_keys:\n    - name: a\n    - sha256: zz\n")
    assert "test.yaml:3: auth.api_keys.0.sha256: must be given" in lines
    assert "test.yaml:3: auth.api_keys.0.tenant_id: must be given" in lines
    assert "test.yaml:4: auth.api_keys.1.name: must be given" in lines
    assert "test.yaml:4: auth.api_keys.1.sha256: must be 64 hexadecimal digits" in lines


def test_text_must_be_text_that_can_be_written() -> None:
    assert len(mistakes_of('logging: {supervision_file: "a\\0b"}')) == 1
    assert len(mistakes_of("", ORCHESTRATOR_LOGGING__SUPERVISION_FILE="a\udcffb")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "redis: {url: 'redis://:canary@host:x'}",
        "redis: {url: [canary]}",
        "redis: {url: *canary}",
        "redis: {url: !canary x}",
        "redis: canary",
        "auth: canary",
        "auth: {jwt: canary}",
        "auth: {jwt: {key: [canary]}}",
        "auth: {mode: jwt, jwt: {algorithms: HS256, key: canary}}",
        "auth: {api_keys: [canary]}",
        "auth: {api_keys: [{sha256: canary}]}",
        "auth: {api_keys: canary}",
        "auth: {jwt: {key: 'canary}}",
        "auth: {jwt: {key: {canary: canary}}}",
        "canary",
    ],
)
def test_a_secret_is_never_repeated(text: str) -> None:
    mistakes = mistakes_of(text)
    assert mistakes
    assert "canary" not in "".join(mistakes)
    variables = {"ORCHESTRATOR_REDIS_URL": "http://canary", "ORCHESTRATOR_AUTH__JWT": "[canary"}
    assert "canary" not in "".join(mistakes_of("", **variables))


def test_long_values_are_shortened_and_stay_on_their_line() -> None:
    (mistake,) = mistakes_of(f'logging: {{level: "{"x" * 500}"}}')
    assert len(mistake) < 200
    (mistake,) = mistakes_of('"a\\nb\\e[31m": 1')
    assert mistake.isprintable()


def test_given_tiers_stand_beside_the_shipped_ones() -> None:
    # They are refused as yet; what they will be is read already.
    from config.mistakes import Mistakes
    from config.reading import Reader
    from config.settings import Settings

    slots = Reader(Mistakes()).section(Settings, {"tiers": {}}, ())
    assert slots.tiers == SHIPPED_TIERS
    gold = Reader(Mistakes()).section(TierSettings, {"weight": 3, "max_running": None}, ())
    assert (gold.weight, gold.max_running, gold.priority) == (3, None, "high")
