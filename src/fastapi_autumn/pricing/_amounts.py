"""Amounts of credits: exact decimals on this side, JSON numbers on Autumn's."""

import re
from decimal import ROUND_UP, Decimal
from functools import lru_cache

from fastapi_autumn._exact import exact
from fastapi_autumn.errors import AmountError

__all__ = ["CEILING", "PLACES", "credits", "rounded_up", "to_json_number"]

PLACES = 10
"""Autumn keeps balances to this many decimal places."""

CEILING = Decimal(10_000_000_000_000)
"""The most credits that a plan can include, so also the most that a call can cost."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_LONGEST = 40


def credits(value: Decimal | float | str, *, allow_zero: bool = False) -> Decimal:  # noqa: A001 - as in __init__
    """Turn `value` into an exact, positive amount of credits.

    A float counts as the digits that Python shows for it, so 0.1 is one tenth. Equal amounts come back with equal
    digits: `"3.00"`, `3` and `3.0` all give `Decimal("3")`.

    Raises:
        AmountError: not a number (a bool is none), not finite, negative, zero without `allow_zero`, above 10 trillion,
            finer than 10 decimal places, or with more digits than a JSON number keeps (Autumn reads doubles).
    """
    amount = _exact(value)
    if not amount.is_finite():
        raise AmountError(f"an amount of credits must be finite, not {_shown(value)}")
    if amount < 0:
        raise AmountError(f"an amount of credits must not be negative, and {_shown(value)} is")
    if amount > CEILING:
        raise AmountError(f"an amount of credits must not exceed {CEILING:,}, and {_shown(value)} does")
    if not amount:
        if allow_zero:
            return Decimal(0)
        raise AmountError("an amount of credits must be more than zero")
    canonical = _canonical(amount)
    if canonical is None:
        raise AmountError(f"an amount of credits has at most {PLACES} decimal places, and {_shown(value)} has more")
    if Decimal(repr(float(canonical))) != canonical:
        raise AmountError(f"{_shown(value)} has more digits than a JSON number keeps; write at most 15")
    return canonical


def rounded_up(value: Decimal | float | str) -> Decimal:
    """Turn a calculated amount, zero or more, into credits: rounded up once, at ten decimal places.

    A quotient such as one third is as good as any other amount. What JSON cannot carry exactly is rounded up as well.

    Raises:
        AmountError: not a number, not finite, negative, or above 10 trillion.
    """
    amount = _exact(value)
    if not amount.is_finite() or amount > CEILING or amount < 0:
        return credits(value, allow_zero=True)
    with exact() as context:
        context.rounding = ROUND_UP
        places = PLACES
        rounded = amount.quantize(Decimal(1).scaleb(-places))
        # Autumn reads doubles, which keep 15 digits: large amounts have fewer places.
        while Decimal(repr(float(rounded))) != rounded:
            places -= 1
            rounded = amount.quantize(Decimal(1).scaleb(-places))
    return credits(rounded, allow_zero=True)


def to_json_number(amount: Decimal) -> int | float:
    """The JSON number for an amount that `credits` accepted: an int where it is whole, else a float."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def _exact(value: Decimal | float | str) -> Decimal:
    """Read `value` without rounding; text must be plain ASCII digits, so no blanks, underscores or other scripts."""
    if isinstance(value, bool):
        raise AmountError(f"an amount of credits must be a number, not {value}")
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int):
        # Out of range the exact value no longer matters, and integers of many digits are slow to convert.
        return Decimal(max(-1, min(value, int(CEILING) + 1)))
    if isinstance(value, float):
        return Decimal(float.__repr__(value))
    if isinstance(value, str) and len(value) <= _LONGEST and _NUMBER.fullmatch(value):
        return Decimal(value)
    raise AmountError(f"an amount of credits must be a number, not {_shown(value)}")


@lru_cache(maxsize=1024)
def _canonical(amount: Decimal) -> Decimal | None:
    """`amount` without trailing zeros or exponent, or None where it is finer than Autumn keeps.

    Remembered, because calls come with the same few prices.

    Works on the digits, because Decimal's own arithmetic rounds to the precision of the calling thread.
    """
    _, digits, last = amount.as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    exponent = int(last) + len(digits) - len(text)
    if exponent < -PLACES:
        return None
    return Decimal(text + "0" * exponent) if exponent >= 0 else Decimal(f"{text}E{exponent}")


def _shown(value: object) -> str:
    """`value` for an error message: short, on one line, and never the whole of a huge input."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:  # repr refuses integers of thousands of digits
        return "a huge number"
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"a text of {len(value)} characters"
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, int | float | Decimal):
        text = str(value)
        return text if len(text) <= _LONGEST else "a number of many digits"
    return f"a value of type {type(value).__name__}"
