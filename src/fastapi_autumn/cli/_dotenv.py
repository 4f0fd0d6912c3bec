"""Changing single variables of a `.env` without touching its other lines."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fastapi_autumn.errors import ConfigurationError

__all__ = ["names_in", "set_variables"]


def set_variables(path: Path, variables: Mapping[str, str | None]) -> list[str]:
    """Set variables in the file at `path`, or take out those that are None; returns the names that changed.

    The file is replaced as a whole, so a crash leaves the old one or the new one, and only its owner can read it
    afterwards. New variables are appended.

    Raises:
        ConfigurationError: The file is not UTF-8.
    """
    path = path.resolve()  # a link stays a link
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8; save it in that encoding.") from None
    lines = text.splitlines(keepends=True)
    changed = [name for name, value in variables.items() if value is not None or any(_sets(name, one) for one in lines)]
    kept: list[str] = []
    pending = {name: value for name, value in variables.items() if value is not None}
    for line in lines:
        name = next((name for name in variables if _sets(name, line)), None)
        if name is None:
            kept.append(line)
        elif name in pending:
            kept.append(f"{name}={pending.pop(name)}\n")
    if pending and kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    kept += [f"{name}={value}\n" for name, value in pending.items()]
    if changed:
        _replace(path, "".join(kept))
    return changed


def names_in(path: Path) -> list[str]:
    """Return the names of the variables that the file at `path` sets; none where there is no file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)


def _sets(name: str, line: str) -> bool:
    return re.match(rf"\s*(export\s+)?{name}\s*=", line) is not None


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # mode 600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
