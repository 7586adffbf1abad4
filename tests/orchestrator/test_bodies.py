"""What a field of our own takes is what it publishes of itself."""

import re
from typing import Any

import pytest
from marshmallow import ValidationError, fields

from common.domain.events import RESERVED_TYPES
from orchestrator.bodies import Id, Object, PushableWord, Seconds, SendMessage, Word, limited

TEXTS = [
    "a",
    "A9",
    "a" * 64,
    "a" * 65,
    "a" * 128,
    "a" * 129,
    "a.b@c-d",
    "a:b",
    "",
    ".a",
    "ä",
    "a b",
]


@pytest.mark.parametrize("field", [Id(), Word(), PushableWord()], ids=["id", "word", "pushable"])
@pytest.mark.parametrize("text", [*TEXTS, *sorted(RESERVED_TYPES), "broadcast"])
def test_a_text_is_taken_if_it_fits_what_is_published(field: Any, text: str) -> None:
    schema = field.json_schema()
    fits = (
        re.search(schema["pattern"], text) is not None
        and schema["minLength"] <= len(text) <= schema["maxLength"]
        and text not in schema.get("not", {}).get("enum", ())
    )
    assert is_taken(field, text) is fits


@pytest.mark.parametrize("value", [0.99, 1, 1.5, 60, 60.01])
def test_a_time_is_taken_within_the_bounds_that_are_published(value: float) -> None:
    field = Seconds(60)
    schema = field.json_schema()
    assert is_taken(field, value) is (schema["minimum"] <= value <= schema["maximum"])


def test_an_object_may_hold_anything() -> None:
    assert Object().json_schema() == {"additionalProperties": True}
    assert is_taken(Object(), {"a": [1, None, {"b": "c"}]})


def test_the_limit_of_a_timeout_is_the_settings_own() -> None:
    field = limited(SendMessage, 7).fields["timeout"]
    assert isinstance(field, Seconds)
    assert field.json_schema()["maximum"] == 7


def is_taken(field: fields.Field[Any], value: Any) -> bool:
    try:
        field.deserialize(value)
    except ValidationError:
        return False
    return True
