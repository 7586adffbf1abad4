"""What may stand in a line of the log: of sensible length, without secrets, and never two lines.

Whoever sends us something must not be able to fill a disk with it, to write lines that look like
ours, or to make a terminal do tricks; and what was trusted to us must not lie about in files.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

MOST_VALUE = 1024  # characters of one value
MOST_TRACEBACK = 8192
LOOKED_AT = 4 * MOST_TRACEBACK  # characters, so that what is to be hidden is recognised
MOST_ITEMS = 20  # of a list or mapping within a line
DEEPEST = 4
TRACEBACKS = ("exception", "traceback", "stack")

# Control characters, and those that turn text around, hide it, or end a line for some readers.
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ud800-\udfff]"
)
UNSEEN_IN_JSON = re.compile(UNSEEN.pattern.replace("\x00-\x1f", ""))  # JSON escapes these itself

HIDDEN = "***"
# What credentials look like, wherever they stand. Nothing of ours logs any; this is for libraries.
SECRETS = re.compile(
    r"(?P<head>://[^\s/@:\"']*:)[^\s@\"']+(?=@)"  # the password of a URL
    r"|(?P<query>\b(?:token|password|secret|api_?key)=)[^\s&\"']+"
    r"|(?P<header>\b(?i:bearer|basic|x-api-key)\b[\s:,\"']+)[^\s,\"']+"
    r"|\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"  # a JSON Web Token
)


def bounded(event: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a line as they may be written: each cut to what is sensible, and says so."""
    return {
        _cut(str(name), 64): _traceback(value) if name in TRACEBACKS else _value(value)
        for name, value in islice(event.items(), 3 * MOST_ITEMS)
    }


def _traceback(value: Any) -> Any:
    """Cut at its beginning, as the newest call stands last."""
    if not isinstance(value, str):
        return _value(value)
    hidden = _hidden(value[-LOOKED_AT:])
    if len(value) <= MOST_TRACEBACK:
        return hidden
    return f"({len(value)} characters) …{hidden[-MOST_TRACEBACK:]}"


def _value(value: Any, depth: int = 0) -> Any:
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if abs(value) < 2**63 else _cut(hex(value), MOST_VALUE)
        case str():
            return _cut(value, MOST_VALUE)
        case Mapping() if depth < DEEPEST:
            items: Iterator[Any] = islice(value.items(), MOST_ITEMS)
            return {_cut(str(name), 64): _value(each, depth + 1) for name, each in items}
        case Sequence() | set() | frozenset() if depth < DEEPEST and not isinstance(value, bytes):
            return [_value(each, depth + 1) for each in islice(iter(value), MOST_ITEMS)]
    return _cut(repr(value), MOST_VALUE)


def _cut(text: str, most: int) -> str:
    hidden = _hidden(text[:LOOKED_AT])
    return hidden if len(text) <= most else f"{hidden[:most]}… ({len(text)} characters)"


def _hidden(text: str) -> str:
    """Without secrets, and without lone surrogates: they can neither be written nor be JSON."""
    return without_secrets(text.encode(errors="backslashreplace").decode())


def without_secrets(text: str) -> str:
    """The text with what looks like a credential in it hidden."""
    return SECRETS.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    return (found["head"] or found["query"] or found["header"] or "") + HIDDEN


def visible(text: str) -> str:
    """The text on one line: what cannot be seen, or would be acted on, is written as its code."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def indented(text: str) -> str:
    """A traceback below its line: no line of it can be taken for one of the log."""
    return "\n".join(f"    {visible(line)}" for line in text.split("\n"))


def visible_json(text: str) -> str:
    """JSON as it was, with what cannot be seen as escapes of JSON."""
    return UNSEEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
