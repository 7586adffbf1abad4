"""Writes the reference of all settings: `python -m config.reference > config/reference.yaml`.

The page is itself a valid configuration: every setting at its default.
"""

import sys
from collections.abc import Iterator
from typing import Any

import yaml

from config.rules import NO_RULE, Slot, expected, is_section, list_of, mapping_of, slots_of
from config.settings import SHIPPED_TIERS, Settings

HEAD = """\
# Every setting, with its unit, limits and default. Written from config/sections.py by
# `python -m config.reference > config/reference.yaml`; a test keeps the two equal.
#
# Each can be set by a variable as well, which wins over the file: ORCHESTRATOR_SECTION__NAME, for
# example ORCHESTRATOR_AUTH__MODE. Lists are written as in YAML: [a, b]. Where a setting has
# another, flat spelling too, it stands beside it. `python run.py --check-config --config FILE`
# checks a file and does nothing else.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD.rstrip(), *_section(Settings, 0)]) + "\n"


def _section(section: type, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for slot in slots_of(section):
        if depth == 0:
            yield ""
        yield from _about(slot, indent)
        if is_section(slot.hint):
            yield f"{indent}{slot.name}:"
            yield from _section(slot.hint, depth + 1)
        else:
            yield f"{indent}{slot.name}: {_flow(_given(slot))}"
            yield from _example(slot, indent)


def _about(slot: Slot, indent: str) -> Iterator[str]:
    rule = slot.rule
    if is_section(slot.hint) and rule.help == NO_RULE.help:
        yield f"{indent}# {(slot.hint.__doc__ or '').splitlines()[0]}"
    else:
        yield from _wrapped(f"{rule.help}.{_limits(slot)}", indent)
    if rule.variable:
        yield f"{indent}# Variable: {rule.variable}"
    if rule.comes_with:
        yield f"{indent}# Comes with {rule.comes_with}; until then all else is refused."


def _example(slot: Slot, indent: str) -> Iterator[str]:
    """What an entry of a mapping or a list looks like, as a comment."""
    item = mapping_of(slot.hint) or list_of(slot.hint)
    if not is_section(item):
        return
    yield f"{indent}#   {'NAME:' if mapping_of(slot.hint) else '- # one of these for each'}"
    for line in _section(item, 1):
        yield f"{indent}#   {line}"
    if slot.name == "tiers":
        yield f"{indent}# Shipped:"
        for name, tier in SHIPPED_TIERS.items():
            values = {each.name: getattr(tier, each.name) for each in slots_of(type(tier))}
            yield f"{indent}#   {name}: {_flow(values)}"


def _limits(slot: Slot) -> str:
    """What the value may be, where the help does not say it all."""
    if mapping_of(slot.hint) or is_section(list_of(slot.hint)):
        return ""
    words = expected(slot.hint, slot.rule)
    return "" if words == "text" else f" {words[0].upper()}{words[1:]}."


def _given(slot: Slot) -> Any:
    """The default as it is written; the shipped tiers are there without being written."""
    return {} if slot.name == "tiers" else slot.default


def _flow(value: Any) -> str:
    match value:
        case tuple() if value == ("none",):
            return "none"
        case tuple():
            value = list(value)
        case float() if value.is_integer():
            value = int(value)
        case dict():
            value = {name: _plain(each) for name, each in value.items()}
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wrapped(text: str, indent: str) -> Iterator[str]:
    """Lines of a comment, at most some 100 characters wide."""
    line = ""
    for word in text.split():
        if line and len(indent) + len(line) + len(word) > 96:
            yield f"{indent}# {line}"
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield f"{indent}# {line}"


if __name__ == "__main__":
    sys.stdout.write(reference())
