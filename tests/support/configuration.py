"""Loading a configuration from a text, and collecting what is wrong with one."""

import tempfile
from pathlib import Path

from config.settings import ConfigurationError, Settings, load


def settings_of(text: str, **environ: str) -> Settings:
    """The settings of a file with this text, and of these variables."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test.yaml")
        file.write_text(text)
        return load(file, environ)


def mistakes_of(text: str, **environ: str) -> list[str]:
    """What is wrong with them, without the folder of the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "test.yaml")
        file.write_text(text)
        try:
            load(file, environ)
        except ConfigurationError as error:
            return [line.removeprefix(f"{folder}/") for line in error.mistakes]
    return []
