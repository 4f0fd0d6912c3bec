"""What a call used, counted by kind."""

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Self

from fastapi_autumn.errors import AmountError

__all__ = ["INPUT_KINDS", "KINDS", "OUTPUT_KINDS", "Counts"]

_MOST = 10**15
"""More than any call can use. It keeps the arithmetic exact, and a provider's nonsense out of it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one or more calls used. Each token is counted in one kind only: a cached one is in `cached`, not in `input`.

    `seconds` and `units` may have a fraction; a float counts as the digits that Python shows for it.

    Raises:
        AmountError: A count is negative, no number, not whole where it has to be, or more than any call can use.
    """

    input: int = 0
    """Tokens that the model read, apart from the following three kinds."""
    cached: int = 0
    """Tokens that the provider had in its cache."""
    cache_write: int = 0
    """Tokens that were written to that cache."""
    audio_input: int = 0
    output: int = 0
    """Tokens that the model wrote, apart from the following two kinds."""
    reasoning: int = 0
    audio_output: int = 0
    images: int = 0
    seconds: Decimal | float = 0
    characters: int = 0
    units: Decimal | float = 0

    def __post_init__(self) -> None:
        for name in KINDS:
            value = getattr(self, name)
            if type(value) is int and 0 <= value <= _MOST:
                continue
            object.__setattr__(self, name, _exact(name, value))

    @property
    def context(self) -> int:
        """All tokens that the model read."""
        return self.input + self.cached + self.cache_write + self.audio_input

    @property
    def written(self) -> int:
        """All tokens that the model wrote."""
        return self.output + self.reasoning + self.audio_output

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in KINDS))

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in KINDS)

    @classmethod
    def sum(cls, counts: "list[Counts]") -> Self:
        """Add up any number of counts."""
        return cls(*(sum(getattr(one, name) for one in counts) for name in KINDS))

    def shown(self) -> dict[str, int | float]:
        """The counts that are not zero, by the names of their kinds, ready for JSON."""
        counted = {name: getattr(self, name) for name in KINDS}
        return {name: int(value) if value == int(value) else float(value) for name, value in counted.items() if value}


KINDS = tuple(field.name for field in fields(Counts))
INPUT_KINDS = ("input", "cached", "cache_write", "audio_input")
OUTPUT_KINDS = ("output", "reasoning", "audio_output")
_WITH_FRACTION = frozenset({"seconds", "units"})


def _exact(name: str, value: object) -> int | Decimal:
    number = Decimal(float.__repr__(value)) if isinstance(value, float) else value
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise AmountError(f"{name} has to be a number, not a value of type {type(value).__name__}")
    if isinstance(number, Decimal) and not number.is_finite():
        raise AmountError(f"{name} has to be finite")
    if not 0 <= number <= _MOST:
        raise AmountError(f"{name} has to be 0 or more, and no more than {_MOST:,}")
    if number != int(number):
        if name not in _WITH_FRACTION:
            raise AmountError(f"{name} has to be a whole number")
        return number
    return int(number)
