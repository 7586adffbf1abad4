"""The sections: frozen, complete in their metadata, and discreet about secrets."""

import dataclasses
from collections.abc import Iterator

import pytest

from config.rules import Slot, is_section, list_of, mapping_of, slots_of
from config.sections import RedisSettings
from config.settings import Settings


def all_slots(section: type = Settings) -> Iterator[Slot]:
    for slot in slots_of(section):
        yield slot
        inner = mapping_of(slot.hint) or list_of(slot.hint) or slot.hint
        if is_section(inner):
            yield from all_slots(inner)


def test_every_setting_says_what_it_is() -> None:
    silent = [slot.name for slot in all_slots() if not slot.rule.help and not is_section(slot.hint)]
    assert silent == []


def test_every_setting_of_time_or_size_has_its_unit() -> None:
    timed = [
        slot
        for slot in all_slots()
        if slot.name.endswith(("_seconds", "_timeout", "_bytes", "ttl", "timeout", "_interval"))
        and slot.name != "reconnects_per_second"
    ]
    assert len(timed) >= 14
    assert [slot.name for slot in timed if slot.rule.unit not in {"seconds", "bytes"}] == []


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().server.port = 1  # type: ignore[misc]


def test_secrets_are_in_no_repr() -> None:
    redis = RedisSettings(url="redis://user:canary@host/0")
    assert "canary" not in repr(redis)
    assert "canary" not in repr(dataclasses.replace(Settings(), redis=redis))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("embedded", "embedded"),
        ("redis://user:canary@host:1/2?password=canary", "redis://host:1/2"),
        ("redis://:can@ry@host/2", "redis://host/2"),
        ("rediss://[::1]:6380", "rediss://[::1]:6380"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_logs_can_name_redis_without_its_password(url: str, address: str) -> None:
    assert RedisSettings(url=url).address == address
