"""What the operations share in writing their bodies: explicit fields, exact amounts."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel

from fastapi_autumn import models
from fastapi_autumn.pricing import credits, to_json_number  # noqa: A004 - Autumn's own word for the unit

__all__ = [
    "UNCHANGED",
    "Done",
    "RedirectMode",
    "Unchanged",
    "amount",
    "changed",
    "given",
    "is_entity",
    "is_record_of",
    "lock_body",
    "names_customer",
    "quantities",
    "signed",
    "whole_range",
]


class Unchanged:
    """The type of `UNCHANGED`."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
"""Leave the field as Autumn has it, where None would empty it."""

RedirectMode = Literal["always", "if_required", "never"]


class Done(BaseModel):
    """The answer of an operation that says only that it is done."""

    success: Literal[True]


def names_customer(customer_id: str, entity_id: str | None = None) -> Callable[[Any], bool]:
    """Return what tells an answer about this customer, and about this entity where the answer names one."""
    return lambda read: read.customer_id == customer_id and getattr(read, "entity_id", None) in {None, entity_id}


def is_record_of(customer_id: str) -> Callable[[Any], bool]:
    """Return what tells this customer's record."""
    return lambda read: read.id == customer_id


def is_entity(customer_id: str, entity_id: str) -> Callable[[Any], bool]:
    """Return what tells this entity's record."""
    return lambda read: read.id == entity_id and read.customer_id in {None, customer_id}


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def changed(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not UNCHANGED; None is written as null, which empties a field."""
    return {name: value for name, value in fields.items() if value is not UNCHANGED}


def amount(value: Decimal | float | None, *, allow_zero: bool = True) -> int | float | None:
    """Write an amount of credits that is not negative.

    Raises:
        AmountError: It is none.
    """
    return None if value is None else to_json_number(credits(value, allow_zero=allow_zero))


def signed(value: Decimal | float) -> int | float:
    """Write an amount of credits that may be negative, but not zero."""
    # Decimal's own minus would round, and its comparison trips over NaN.
    negative = value.is_signed() if isinstance(value, Decimal) else value < 0
    if not negative:
        return to_json_number(credits(value))
    return -to_json_number(credits(value.copy_negate() if isinstance(value, Decimal) else -value))


def lock_body(lock: models.Lock | None) -> dict[str, Any] | None:
    """Write a hold."""
    if lock is None:
        return None
    return {"enabled": True, "lock_id": lock.lock_id, "expires_at": lock.expires_at}


def quantities(units: Mapping[str, int] | None) -> list[dict[str, Any]] | None:
    """Write feature id to units as Autumn's list; no feature at all is None."""
    return [{"feature_id": id_, "quantity": quantity} for id_, quantity in (units or {}).items()] or None


def whole_range(range_: str | None, start: int | None, end: int | None) -> dict[str, Any] | None:
    """Write `custom_range`.

    Raises:
        ValueError: One of `start` and `end` without the other, or both with `range_`.
    """
    if (start is None) != (end is None) or (start is not None and range_ is not None):
        raise ValueError("events.aggregate takes a range, or a start and an end")
    return given(start=start, end=end) or None
