"""What a YAML file and the environment say, put together before anything is understood.

Remembers where each value came from, so that a mistake can name the line or the variable.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import yaml

from config.mistakes import Mistakes, Path, dotted
from config.rules import is_section, list_of, mapping_of, slots_of, without_none

PREFIX = "ORCHESTRATOR_"
# What Kubernetes injects for a service that is called `orchestrator`.
INJECTED = ("ORCHESTRATOR_SERVICE_", "ORCHESTRATOR_PORT_")
DEEPEST = 5  # levels of a file that are looked through for names given twice


class _Loader(yaml.SafeLoader):
    """Plain YAML, but for dates: no setting is one, and `2026-99-99` is no reason to fail."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def gather(
    path: FilePath, environ: Mapping[str, str], root: type, mistakes: Mistakes
) -> dict[str, Any]:
    """The tree of the file with the variables laid over it."""
    tree = _file(path, mistakes)
    for variable, where, text in _variables(environ, root, mistakes):
        try:
            value = _value_of(text, _hint_at(root, where))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mistakes.add_line(f"{variable}: {dotted(where)}: {_what_is_wrong(error)}")
            continue
        _lay_over(tree, where, value, variable, mistakes)
    return tree


# --- The file ------------------------------------------------------------------------------


def _file(path: FilePath, mistakes: Mistakes) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        mistakes.add_line(f"{path}: cannot be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        mistakes.add_line(f"{path}: is not UTF-8 text")
        return {}
    try:
        return _parsed(text, str(path), mistakes)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mistakes.add_line(f"{path}{_line_of(error)}: {_what_is_wrong(error)}")
        return {}


def _parsed(text: str, name: str, mistakes: Mistakes) -> dict[str, Any]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _look_through(node, (), name, mistakes)
        tree = loader.construct_document(node)
    finally:
        loader.dispose()
    if tree is None or isinstance(tree, dict):
        return tree or {}
    kind = "a list" if isinstance(tree, list) else "a single value"
    mistakes.add_line(f"{name}: must be a mapping of sections, not {kind}")
    return {}


def _look_through(node: yaml.Node, path: Path, name: str, mistakes: Mistakes) -> None:
    """Notes the line of each setting, and which are given twice: YAML itself takes the last."""
    if path:
        mistakes.origins[path] = f"{name}:{node.start_mark.line + 1}"
    if len(path) >= DEEPEST:
        return
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _look_through(item, (*path, str(index)), name, mistakes)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            word = str(key.value)
            _look_through(value, (*path, word), name, mistakes)
            mistakes.origins[(*path, word)] = f"{name}:{line}"
            if word in seen:
                mistakes.add((*path, word), f"given twice, first in line {seen[word]}")
            seen.setdefault(word, line)


# --- The environment -----------------------------------------------------------------------


def _variables(
    environ: Mapping[str, str], root: type, mistakes: Mistakes
) -> Iterator[tuple[str, Path, str]]:
    """Variable, setting and text of each `ORCHESTRATOR_` variable; the outer settings first."""
    flat = dict(_flat_spellings(root, ()))
    found: dict[Path, tuple[str, str]] = {}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(PREFIX) or _is_injected(variable, text):
            continue
        where = flat.get(variable) or tuple(variable.removeprefix(PREFIX).lower().split("__"))
        if _hint_at(root, where) is None:
            mistakes.add_line(f"{variable}: unknown variable{_nearest(variable, root, flat)}")
        elif found.setdefault(where, (variable, text))[1] != text:
            mistakes.add_line(f"{variable}: {found[where][0]} sets {dotted(where)} otherwise")
    for where in sorted(found, key=len):
        yield found[where][0], where, found[where][1]


def _is_injected(variable: str, text: str) -> bool:
    return variable.startswith(INJECTED) or (
        variable == "ORCHESTRATOR_PORT" and text.startswith("tcp://")
    )


def _flat_spellings(section: type, path: Path) -> Iterator[tuple[str, Path]]:
    for slot in slots_of(section):
        if slot.rule.variable:
            yield slot.rule.variable, (*path, slot.name)
        if is_section(slot.hint):
            yield from _flat_spellings(slot.hint, (*path, slot.name))


def _hint_at(hint: Any, path: Path) -> Any:
    """The type of the setting at `path`, or None if there is none."""
    for name in path:
        if item := mapping_of(hint):
            hint = item if name else None
        elif is_section(hint):
            hint = next((slot.hint for slot in slots_of(hint) if slot.name == name), None)
        else:
            return None
    return hint


def _nearest(variable: str, root: type, flat: Mapping[str, Path]) -> str:
    known = [name.removeprefix(PREFIX) for name in (*flat, *_spellings(root, PREFIX))]
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), known, n=1, cutoff=0.7)
    return f"; did you mean {PREFIX}{near[0]}?" if near else ""


def _spellings(section: type, begun: str) -> Iterator[str]:
    for slot in slots_of(section):
        spelled = begun + slot.name.upper()
        yield spelled
        if is_section(slot.hint):
            yield from _spellings(slot.hint, f"{spelled}__")


def _value_of(text: str, hint: Any) -> Any:
    """Text is taken as it stands; everything else is read as YAML, so lists are `[a, b]`."""
    kind, may_be_null = without_none(hint)
    if may_be_null and text in {"", "null", "~"}:
        return None
    if kind is str or (list_of(kind) is str and not text.lstrip().startswith("[")):
        return text
    return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader


def _lay_over(
    tree: dict[str, Any], path: Path, value: Any, origin: str, mistakes: Mistakes
) -> None:
    """Sets the value at `path`, mappings name by name; what is in the way is left."""
    if isinstance(value, dict) and value:
        for name, each in value.items():
            _lay_over(tree, (*path, str(name)), each, origin, mistakes)
        return
    here: Any = tree
    for name in path[:-1]:
        if here.get(name) is None:
            here[name] = {}
        here = here[name]
        if not isinstance(here, dict):
            return
    here[path[-1]] = value
    for known in [known for known in mistakes.origins if known[: len(path)] == path]:
        del mistakes.origins[known]
    mistakes.origins[path] = origin


# --- What is wrong with YAML, in one line ----------------------------------------------------


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    if not problem:
        return "has a value that cannot be read"
    if "'\\t'" in problem:
        return "is not YAML: tabs are not allowed here, indent with spaces"
    # A word that YAML stumbled over may be a secret that should have been quoted.
    words = re.sub(r"\b(alias|anchor|tag|handle) .*", r"\1 …", " ".join(str(problem).split()))
    return f"is not YAML: {words}"
