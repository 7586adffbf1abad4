"""Collecting everything that is wrong with a configuration, a clear line each."""

from typing import Any

# Where a setting is: ("websocket", "ping_interval").
Path = tuple[str, ...]


class ConfigurationError(Exception):
    """The configuration cannot be used; `mistakes` has a line for each thing that is wrong."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Mistakes:
    """What has been found wrong so far. Knows which line or variable each setting came from."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.origins: dict[Path, str] = {}
        self._paths: set[Path] = set()

    def add(self, path: Path, text: str) -> None:
        """Something is wrong with the setting at `path`."""
        self._paths.add(path)
        origin = self._origin(path)
        prefix = f"{origin}: " if origin else ""
        self.add_line(f"{prefix}{dotted(path)}: {text}")

    def add_line(self, line: str) -> None:
        """Something is wrong that belongs to no setting. It stays one line, whatever is in it."""
        self.lines.append("".join(each if each.isprintable() else "?" for each in line))

    def concern(self, path: Path) -> bool:
        """True if the setting at `path`, or something in it, was found wrong."""
        return any(wrong[: len(path)] == path for wrong in self._paths)

    def _origin(self, path: Path) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return ""


def dotted(path: Path) -> str:
    return ".".join(path)


def shown(value: Any, *, secret: bool = False) -> str:
    """A value as a mistake repeats it: short, on one line, and never if it is a secret."""
    if secret:
        return "what was given"
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 60 else f"{value[:57]}...")
        case int() if abs(value) >= 10**18:
            return "a number that large"
        case int() | float():
            return str(value)
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"
