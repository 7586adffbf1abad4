"""What one setting may be: its default, unit, limits and help, said once and used everywhere.

`setting` puts a `Rule` beside the field of a settings dataclass. `config/reading.py` checks what
was given by it, and `config/reference.py` writes the reference page from it.
"""

import ipaddress
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from config import redis_url as redis_urls

# Redis and the event loop take what fits here; nothing sensible is larger.
LARGEST = 2**31 - 1

Check = Callable[[Any], str | None]
"""Says what is wrong with a value of the right type, or None. Never repeats a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Everything about a setting but its name and type."""

    help: str
    unit: str = ""
    above: float | None = None  # the value must be larger
    at_least: float = 0
    at_most: float = LARGEST
    choices: tuple[str, ...] = ()
    check: Check | None = None
    names: Check | None = None  # for a mapping: what is wrong with a name in it
    required: bool = False  # must be given; for settings of things that are listed
    secret: bool = False  # never shown: neither in a repr nor in a mistake
    variable: str = ""  # the flat spelling of its environment variable, if it has one
    comes_with: str = ""  # until this later step, only the default is taken


NO_RULE = Rule(help="")


def setting(default: Any, help: str, **rule: Any) -> Any:  # noqa: A002  the word readers look for
    """A field of a settings dataclass. A default that is a class or function makes the value."""
    made = Rule(help=help, **rule)
    options: dict[str, Any] = {"repr": not made.secret, "metadata": {"rule": made}}
    if callable(default):
        return field(default_factory=default, **options)
    return field(default=default, **options)


@dataclass(frozen=True, slots=True)
class Slot:
    """One field of a settings dataclass, with its type worked out."""

    name: str
    hint: Any
    rule: Rule
    default: Any


def slots_of(section: type) -> tuple[Slot, ...]:
    """The settings of a section, in the order in which they are written."""
    hints = get_type_hints(section)
    return tuple(
        Slot(item.name, hints[item.name], item.metadata.get("rule", NO_RULE), _default(item))
        for item in fields(section)
    )


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def is_section(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def mapping_of(hint: Any) -> Any:
    """X for `Mapping[str, X]`, else None."""
    return get_args(hint)[1] if get_origin(hint) is Mapping else None


def list_of(hint: Any) -> Any:
    """X for `tuple[X, ...]`, else None."""
    return get_args(hint)[0] if get_origin(hint) is tuple else None


def without_none(hint: Any) -> tuple[Any, bool]:
    """The type, and whether null is allowed beside it."""
    if get_origin(hint) not in {Union, types.UnionType}:
        return hint, False
    (kind,) = (each for each in get_args(hint) if each is not type(None))
    return kind, True


def expected(hint: Any, rule: Rule) -> str:
    """What a setting may be, in words: `a whole number from 1 to 65535`."""
    kind, may_be_null = without_none(hint)
    return _expected(kind, rule) + (", or null" if may_be_null else "")


def _expected(kind: Any, rule: Rule) -> str:
    if rule.choices:
        several = "a list of " if list_of(kind) else ""
        return f"{several}{'one of ' if not several else ''}{', '.join(rule.choices)}"
    if kind is bool:
        return "true or false"
    if kind in {int, float}:
        return f"{'a whole number' if kind is int else 'a number'}{_range(rule)}"
    if kind is str:
        return "text"
    return "a list" if list_of(kind) else "a mapping"


def _range(rule: Rule) -> str:
    unit = f" of {rule.unit}" if rule.unit else ""
    highest = f"{rule.at_most:g}" if rule.at_most < 10**6 else f"{rule.at_most}"
    if rule.above is not None:
        upper = "" if rule.at_most == LARGEST else f", at most {highest}"
        return f"{unit} above {rule.above:g}{upper}"
    if rule.at_most == LARGEST:
        return f"{unit}, at least {rule.at_least:g}"
    return f"{unit} from {rule.at_least:g} to {highest}"


# --- Checks of one value, used by the settings that need them -------------------------------


def outside_id(value: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}", value):
        return None
    return "must be an id: 1 to 128 letters, digits and _ . @ -, beginning with a letter or digit"


def outside_id_or_all(value: str) -> str | None:
    complaint = None if value == "*" else outside_id(value)
    return complaint and f'{complaint}; or "*" for all'


def outside_ids(values: tuple[str, ...]) -> str | None:
    if not values:
        return "must name at least one tenant; leave it out to mean all"
    return next(filter(None, map(outside_id, values)), None)


def not_blank(value: str) -> str | None:
    if value and value.isprintable() and not any(map(str.isspace, value)):
        return None
    return "must not be empty or contain spaces"


def not_empty(value: str) -> str | None:
    return None if value else "must not be empty; leave it out, or set it to null"


def not_none_of_them(values: tuple[str, ...]) -> str | None:
    return None if values else "must name at least one"


def no_braces(value: str) -> str | None:
    """Braces would take part in Redis's hash tags, and tear apart keys that belong together."""
    if re.fullmatch(r"[!-z|~]{1,128}", value):
        return None
    return "must be 1 to 128 printable characters without spaces or braces"


def redis_url(value: str) -> str | None:
    wrong = None if value == "embedded" else redis_urls.complaint(value)
    return wrong and wrong.replace("must be", "must be embedded, or", 1)


def jwks_url(value: str) -> str | None:
    """An address that nobody on the way can answer for: by TLS, or on this machine."""
    wrong = "must be a URL: https://HOST/PATH, or http://localhost:PORT/PATH on this machine"
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        good = is_safe and host and parts.port != 0
    except ValueError:
        return wrong
    if "@" in parts.netloc or parts.fragment or not re.fullmatch(r"[!-~]+", value):
        return f"{wrong}; without user, password and fragment"
    return None if good else wrong


def networks(values: tuple[str, ...]) -> str | None:
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            return f"must list IP addresses or networks like 10.0.0.0/8, not {value!r}"
    return None


def origins(values: tuple[str, ...]) -> str | None:
    for value in values:
        if value != "*" and not re.fullmatch(r"https?://[^\s/?#@]+", value):
            return f'must list origins like https://chat.example.com, or "*" for all, not {value!r}'
    return None


def modes(values: tuple[str, ...]) -> str | None:
    if values == ("none",) or (values and "none" not in values):
        return None
    return "must be none, jwt, api_key, or a list of the last two"


def not_a_folder(value: str) -> str | None:
    """A file's path. Nothing is created to find out whether it can be written."""
    return "must be the path of a file" if not value or Path(value).is_dir() else None


def sha256_hex(value: str) -> str | None:
    return None if re.fullmatch(r"[0-9a-f]{64}", value) else "must be 64 hexadecimal digits"


def is_loopback(host: str) -> bool:
    """True if nothing outside this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
