"""Exact arithmetic with credits, whatever precision and traps the application has set for its own."""

import decimal
from contextlib import AbstractContextManager

__all__ = ["exact"]

_CONTEXT = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def exact() -> AbstractContextManager[decimal.Context]:
    """Return a context in which no sum or difference of credits is rounded. It holds for the task that enters it."""
    return decimal.localcontext(_CONTEXT)
