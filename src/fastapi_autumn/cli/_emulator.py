"""Opening the emulator's file."""

import sqlite3
from pathlib import Path
from typing import Any

from fastapi_autumn.emulator import Emulator
from fastapi_autumn.errors import ConfigurationError

__all__ = ["open_emulator"]


def open_emulator(path: Path | str, *, catalog: Any = None) -> Emulator:
    """The emulator of `path`.

    Raises:
        ConfigurationError: the file is no emulator's, or another process holds it.
    """
    try:
        return Emulator(path, catalog=catalog)
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"The emulator's file {path} cannot be used ({error}); remove it, or set AUTUMN_EMULATOR_PATH to another."
        ) from error
