"""From what was given (mappings, lists, scalars) to settings, by the rule beside each field."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from config.mistakes import Mistakes, Path, dotted, shown
from config.rules import (
    Rule,
    Slot,
    expected,
    is_section,
    list_of,
    mapping_of,
    slots_of,
    without_none,
)

T = TypeVar("T")

WRONG: Final = object()  # stands for a value that has been complained about


class Reader:
    """Makes settings of what was given. A wrong value is a mistake, and its default stands in."""

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes

    def section(self, kind: type[T], given: Any, path: Path) -> T:
        """The section `kind` from a mapping; null is an empty one."""
        slots = {slot.name: slot for slot in slots_of(kind)}
        values: dict[str, Any] = {}
        mapping = self._mapping(given, path)
        for name in mapping:
            if name not in slots:
                self._mistakes.add((*path, name), f"unknown setting{_nearest(name, path, slots)}")
        for name, slot in slots.items():
            if name in mapping:
                value = self._setting(slot, mapping[name], (*path, name))
                if value is not WRONG:
                    values[name] = value
            elif slot.rule.required:
                self._mistakes.add((*path, name), "must be given")
        return kind(**values)

    def _setting(self, slot: Slot, given: Any, path: Path) -> Any:
        value = self._value(slot.hint, slot.rule, given, path)
        if mapping_of(slot.hint):
            value = {**slot.default, **value}  # what is given stands beside what is shipped
        later = slot.rule.comes_with
        if value is WRONG or not later or value == slot.default:
            return value
        text = f"comes with a later version ({later}); for now it must be {slot.default}"
        return self._wrong(path, text)

    def _value(self, hint: Any, rule: Rule, given: Any, path: Path) -> Any:
        kind, may_be_null = without_none(hint)
        if given is None and may_be_null:
            return None
        if is_section(kind):
            return self.section(kind, given, path)
        if item := mapping_of(kind):
            return self._named(item, rule, given, path)
        if item := list_of(kind):
            return self._list(item, rule, given, path)
        value = _scalar(kind, rule, given)
        if value is WRONG:
            wanted = expected(hint, rule)
            return self._wrong(path, f"must be {wanted}, not {shown(given, secret=rule.secret)}")
        return self._checked(rule, value, path)

    def _named(self, item: Any, rule: Rule, given: Any, path: Path) -> Any:
        values = {}
        for name, each in self._mapping(given, path).items():
            complaint = rule.names(name) if rule.names else None
            if complaint:
                self._mistakes.add((*path, name), complaint)
            values[name] = self._value(item, rule, each, (*path, name))
        return values

    def _list(self, item: Any, rule: Rule, given: Any, path: Path) -> Any:
        if item is str and isinstance(given, str):
            given = [given]  # one alone needs no brackets
        if given is None:
            given = []
        if not isinstance(given, list):
            secret = rule.secret or is_section(item)  # something in it may be one
            return self._wrong(path, f"must be a list, not {shown(given, secret=secret)}")
        each = dataclasses.replace(rule, check=None)
        values = tuple(
            self._value(item, each, one, (*path, str(index))) for index, one in enumerate(given)
        )
        return WRONG if WRONG in values else self._checked(rule, values, path)

    def _mapping(self, given: Any, path: Path) -> dict[str, Any]:
        if given is None:
            return {}
        if not isinstance(given, dict):
            # What stands here may be a secret in the wrong place: it is not repeated.
            kind = "a list" if isinstance(given, list) else "a single value"
            self._mistakes.add(path, f"must be a mapping of names to values, not {kind}")
            return {}
        for name in [name for name in given if not isinstance(name, str)]:
            self._mistakes.add(path, f"the name {shown(name)} is no text; put it in quotes")
        return {name: value for name, value in given.items() if isinstance(name, str)}

    def _checked(self, rule: Rule, value: Any, path: Path) -> Any:
        complaint = rule.check(value) if rule.check else None
        return self._wrong(path, complaint) if complaint else value

    def _wrong(self, path: Path, text: str) -> Any:
        self._mistakes.add(path, text)
        return WRONG


def _scalar(kind: Any, rule: Rule, given: Any) -> Any:
    """The value if it is of the type and within the rule's limits, else WRONG."""
    if kind is bool:
        return given if isinstance(given, bool) else WRONG
    if kind is str:
        fits = isinstance(given, str) and _is_sound(given)
        return given if fits and (not rule.choices or given in rule.choices) else WRONG
    numbers = int if kind is int else (int, float)
    if isinstance(given, bool) or not isinstance(given, numbers):
        return WRONG
    lowest = given >= rule.at_least if rule.above is None else given > rule.above
    # Not-a-number compares false with everything, and so is refused as well.
    return kind(given) if lowest and given <= rule.at_most else WRONG


def _is_sound(text: str) -> bool:
    """False for text that could be written to no file and no socket."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _nearest(name: str, path: Path, slots: Mapping[str, Slot]) -> str:
    """The setting that was probably meant: one of this section, or of the same name in another."""
    known = {each: (*path, each) for each in slots}
    for outer in [slot for slot in slots.values() if is_section(slot.hint)]:
        known |= {slot.name: (*path, outer.name, slot.name) for slot in slots_of(outer.hint)}
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {dotted(known[near[0]])}?" if near else ""
