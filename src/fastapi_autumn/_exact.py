"""Exact arithmetic with credits, whatever precision and traps the application has set for its own."""

import decimal
from contextlib import AbstractContextManager

__all__ = ["exact", "representable"]

_CONTEXT = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def exact() -> AbstractContextManager[decimal.Context]:
    """Return a context in which no sum or difference of credits is rounded. It holds for the task that enters it."""
    return decimal.localcontext(_CONTEXT)


def representable(amount: decimal.Decimal) -> decimal.Decimal:
    """Return the nearest amount that a JSON number carries without loss: Autumn reads doubles."""
    nearest = decimal.Decimal(repr(float(amount)))
    return amount if nearest == amount else nearest
