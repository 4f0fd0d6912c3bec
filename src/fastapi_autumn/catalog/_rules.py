"""The checks that the rules for features, plans and items share: ids, names and numbers."""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from types import UnionType

from fastapi_autumn.errors import CatalogError

__all__ = ["ID", "name_problems", "number_problem", "require", "suggested_id"]

ID = re.compile(r"[a-zA-Z0-9_-]+")


def require(value: object, kind: type | UnionType, what: str, instead: str) -> None:
    """Refuse a value of another type than `kind`, where a type checker would have.

    Raises:
        CatalogError: Says `what` is of the wrong type, and what to write `instead`.
    """
    if not isinstance(value, kind):
        raise CatalogError(f"{what} is {_called(value)}; write {instead}")


def _called(value: object) -> str:
    name = type(value).__name__
    return (
        repr(value)
        if isinstance(value, str | int | float | None)
        else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
    )


def name_problems(id_: str, name: str) -> Iterator[str]:
    if not id_:
        yield 'id is empty; write one, such as "ai_credits"'
    elif not ID.fullmatch(id_):
        yield f"id {id_!r} has other characters than letters, digits, _ and -; write {suggested_id(id_)!r}"
    if not name.strip():
        yield "name is empty; write what customers should read"


def suggested_id(id_: str) -> str:
    """A snake_case id near `id_`."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", id_)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_") or "my_id"


def number_problem(
    value: object, *, least: int | None = 0, above: int | None = None, most: int | None = None, whole: bool = False
) -> str | None:
    """What is wrong with `value` as a number, to put after its name; None where nothing is."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return f"must be a finite number, not {value!r}"
    if above is not None and value <= above:
        return f"must be more than {above}, not {value}"
    if least is not None and value < least:
        return f"must be at least {least}, not {value}"
    if most is not None and value > most:
        return f"must be at most {most:,}, not {value}"
    if whole and value != int(value):
        return f"must be a whole number, not {value}"
    return None
