"""Reading request bodies, with the wording that Autumn uses for what does not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi_autumn.emulator._errors import invalid_inputs

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_ID_RULE = "Use only letters, numbers, underscores, hyphens, and colons."
_MISSING: Any = object()
# With ten decimal places this is what 28 digits hold. Larger numbers mean nothing as an amount.
_LARGEST = 1e17
# Times end with the year 9000, so that adding an interval stays within what a date can be.
_LAST = 221_845_392_000_000
_MOST_INTERVALS = 1_000


class Fields:
    """Reads the fields of one JSON object and collects what is wrong; `check()` raises the 400, if any.

    A field that is absent, or null where that is allowed, reads as None.
    """

    def __init__(self, body: Any, *, path: str = "", problems: list[str] | None = None) -> None:
        if body is None:
            body = {}
        if not isinstance(body, dict):
            raise invalid_inputs(f"input: Invalid input: expected object, received {kind_of(body)}")
        self._body: dict[str, Any] = body
        self._path = path
        self._problems = [] if problems is None else problems

    def __contains__(self, name: str) -> bool:
        """Whether the field was sent, null included."""
        return name in self._body

    def check(self) -> None:
        """Raise the 400 for everything found wrong so far."""
        if self._problems:
            raise invalid_inputs(*self._problems)

    def fail(self, name: str, problem: str) -> None:
        """Note what is wrong with a field."""
        self._problems.append(f"{self._path}{name}: {problem}")

    def raw(self, name: str) -> Any:
        """Return the field as it was sent, whatever it is."""
        return self._body.get(name)

    def string(self, name: str, *, required: bool = False, nullable: bool = False) -> str | None:
        """Read a string."""
        value = self._typed(name, "string", required=required, nullable=nullable)
        return value if isinstance(value, str) else None

    def text(self, name: str) -> str:
        """Read a string that must be there; "" if it is not, which `check()` then refuses."""
        return self.string(name, required=True) or ""

    def known_id(self) -> str:
        """Read the id of a customer that must not be ""; with that, Autumn picks somebody where it does not look."""
        value = self.text("customer_id")
        if self.raw("customer_id") == "":
            self.fail("customer_id", "can't be an empty string")
        return value

    def boolean(self, name: str, *, default: bool = False) -> bool:
        """Read true or false."""
        value = self._typed(name, "boolean")
        return value if isinstance(value, bool) else default

    def number(
        self,
        name: str,
        *,
        required: bool = False,
        nullable: bool = False,
        least: int | None = None,
        most: float = _LARGEST,
    ) -> float | None:
        """Read a finite number between two bounds."""
        value = self._typed(name, "number", required=required, nullable=nullable)
        if not isinstance(value, int | float):
            return None
        if not _is_finite(value):
            self.fail(name, "must be a number (received number)")
        elif least is not None and value < least:
            self.fail(name, f"Too small: expected number to be >={least}")
        elif abs(value) > most:
            self.fail(name, f"Too big: expected number to be <={most:g}")
        else:
            return value
        return None

    def integer(
        self, name: str, *, required: bool = False, least: int | None = None, most: float = _LARGEST
    ) -> int | None:
        """Read a whole number between two bounds."""
        value = self.number(name, required=required, least=least, most=most)
        if value is not None and value != int(value):
            self.fail(name, "Invalid input: expected int, received number")
        return None if value is None else int(value)

    def time(self, name: str, *, required: bool = False) -> int | None:
        """Read a time in milliseconds since 1970, or null."""
        value = self.number(name, required=required, nullable=True, least=0, most=_LAST)
        return None if value is None else int(value)

    def count(self, name: str) -> int:
        """Read how many intervals something lasts; 1 if not given."""
        return self.integer(name, least=1, most=_MOST_INTERVALS) or 1

    def choice(self, name: str, choices: Sequence[str], *, required: bool = False) -> str | None:
        """Read one of a few strings."""
        value = self._body.get(name, _MISSING)
        if value is _MISSING and not required:
            return None
        if not isinstance(value, str) or value not in choices:
            self.fail(name, f"must be one of: {', '.join(choices)}")
            return None
        return value

    def mapping(self, name: str, *, nullable: bool = True) -> dict[str, Any] | None:
        """Read an object with any content."""
        value = self._body.get(name, _MISSING)
        if value is _MISSING or (value is None and nullable):
            return None
        if not isinstance(value, dict):
            self.fail(name, f"Invalid input: expected record, received {kind_of(value)}")
            return None
        return value

    def object(self, name: str, *, required: bool = False) -> Fields | None:
        """Read an object field by field; what is wrong inside is reported with the whole path."""
        value = self._body.get(name, _MISSING)
        if value is _MISSING or value is None:
            if required:
                self.fail(name, f"Invalid input: expected object, received {kind_of(value)}")
            return None
        if not isinstance(value, dict):
            self.fail(name, f"Invalid input: expected object, received {kind_of(value)}")
            return None
        return Fields(value, path=f"{self._path}{name}.", problems=self._problems)

    def named_objects(self, name: str) -> dict[str, Fields]:
        """Read an object whose values are objects."""
        value = self.mapping(name) or {}
        found = {}
        for key, item in value.items():
            if isinstance(item, dict):
                found[key] = Fields(item, path=f"{self._path}{name}.{key}.", problems=self._problems)
            else:
                self.fail(f"{name}.{key}", f"Invalid input: expected object, received {kind_of(item)}")
        return found

    def objects(self, name: str) -> list[Fields]:
        """Read a list of objects."""
        value = self._body.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(name, f"Invalid input: expected array, received {kind_of(value)}")
            return []
        found = []
        for number, item in enumerate(value):
            if isinstance(item, dict):
                found.append(Fields(item, path=f"{self._path}{name}.{number}.", problems=self._problems))
            else:
                self.fail(f"{name}.{number}", f"Invalid input: expected object, received {kind_of(item)}")
        return found

    def strings(self, name: str) -> list[str]:
        """Read a list of strings."""
        value = self._body.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(name, "Invalid input")
            return []
        return value

    def customer_id(self) -> str | None:
        """Read the id of a customer who may be created: null is allowed, and some characters are not."""
        value = self.string("customer_id", required=True, nullable=True)
        if value is not None:
            self.check_id("customer_id", value)
        return value

    def check_id(self, name: str, value: str) -> None:
        """Refuse an id that Autumn refuses: empty, with spaces, or with characters that do not fit a path."""
        if value == "":
            self.fail(name, "can't be an empty string")
            return
        if " " in value:
            self.fail(name, f"cannot contain spaces. {_ID_RULE}")
            return
        wrong = next((character for character in value if not (character.isalnum() or character in "_-:@.+|")), None)
        if wrong is not None:
            self.fail(name, f"cannot contain '{wrong}'. {_ID_RULE}")

    def email(self, name: str = "email") -> str | None:
        """Read an e-mail address, or null."""
        value = self.string(name, nullable=True)
        if value is not None and not _EMAIL.fullmatch(value):
            self.fail(name, "not a valid email address")
        return value

    def _typed(self, name: str, kind: str, *, required: bool = False, nullable: bool = False) -> Any:
        value = self._body.get(name, _MISSING)
        if (value is _MISSING and not required) or (value is None and nullable):
            return None
        if kind_of(value) != kind:
            article = "an" if kind[0] in "aeiou" else "a"
            self.fail(name, f"must be {article} {kind} (received {kind_of(value)})")
            return None
        return value


def _is_finite(value: float) -> bool:
    """Tell whether JavaScript would read the number as a finite one: Python's whole numbers have no end."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def kind_of(value: Any) -> str:
    """Name a JSON value's type as JavaScript does."""
    if value is _MISSING:
        return "undefined"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names: Mapping[type, str] = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def many(body: Any, *, most: int) -> list[Any]:
    """Read a body that is a list of at least one and at most `most` items."""
    if not isinstance(body, list):
        raise invalid_inputs(f"input: Invalid input: expected array, received {kind_of(body)}")
    if not body:
        raise invalid_inputs("input: Too small: expected array to have >=1 items")
    if len(body) > most:
        raise invalid_inputs(f"input: Too big: expected array to have <={most} items")
    return body
