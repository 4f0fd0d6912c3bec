"""A TOML file that can say on which line a key stands, which tomllib cannot."""

import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from fastapi_autumn.errors import PriceListError

__all__ = ["TomlFile"]


@dataclass(frozen=True)
class TomlFile:
    """The content of a price list file, or of none (a mapping in code has no lines)."""

    path: Path | None = None
    text: str = field(default="", repr=False)
    content: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and parse; a number is a Decimal with the digits that the file has."""
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise PriceListError(f"cannot read the price list {path}: {error.strerror or error}") from error
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise PriceListError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
        try:
            return cls(path, text, tomllib.loads(text, parse_float=Decimal))
        except ValueError as error:  # TOMLDecodeError, which names the line, and integers of thousands of digits
            raise PriceListError(
                f'{path}: {error}; write "model name" = credits, with quotes around a name with a dot, slash or colon'
            ) from None

    def table(self, name: str) -> Mapping[str, Any]:
        """The table `name`; an empty one where the file has none."""
        table = self.content.get(name, {})
        if not isinstance(table, dict):
            raise PriceListError(f"{self.at((name,))}{name!r} must be a table; write [{name}] on a line of its own")
        return table

    def at(self, keys: tuple[str, ...]) -> str:
        """Where `keys` (table, then key) is written, to start an error message with: `"prices.toml, line 3: "`.

        Every prefix of a TOML file that ends between two statements is TOML itself, so the line that is wanted is
        the first whose statement makes the key appear. This holds for quoted keys, dotted ones and inline tables.
        """
        if self.path is None:
            return ""
        if not keys:
            return f"{self.path}: "
        lines = self.text.split("\n")
        line = bisect_left(range(1, len(lines) + 1), True, key=lambda count: _appears(keys, lines, count)) + 1
        return f"{self.path}, line {line}: "


def _appears(keys: tuple[str, ...], lines: list[str], count: int) -> bool:
    """Whether `keys` is set once the statement that line number `count` belongs to is complete."""
    while True:
        try:
            value: Any = tomllib.loads("\n".join(lines[:count]))
            break
        except tomllib.TOMLDecodeError:  # in the middle of a statement; the file as a whole is known to parse
            count += 1
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
