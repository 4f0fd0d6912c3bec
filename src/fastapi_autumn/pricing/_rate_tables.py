"""Rates as tables of a file: the arguments of the functions that make them."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi_autumn.errors import AmountError
from fastapi_autumn.pricing._rates import Rate, images, per_character, per_second, per_unit, tokens

__all__ = ["is_rate_table", "rate_of"]

_BY_FIRST: dict[str, Callable[..., Rate]] = {
    "images": images,
    "second": per_second,
    "character": per_character,
    "unit": per_unit,
}
_TOKEN_PRICES = ("input", "output", "cached", "cache_write", "reasoning", "audio_input", "audio_output")


def is_rate_table(table: Mapping[str, Any]) -> bool:
    """Tell a rate from what TOML makes of a model's name with a dot in it."""
    return any(name in table for name in (*_BY_FIRST, *_TOKEN_PRICES))


def rate_of(table: Mapping[str, Any]) -> Rate:
    """Make the rate that a table describes.

    Raises:
        AmountError: A price is none, or a name is unknown.
        TypeError: A value has the wrong type.
    """
    arguments = dict(table)
    for name in ("images", "tiers"):
        if not isinstance(arguments.get(name, {}), Mapping):
            raise AmountError(f"{name} has to be a table of prices")
    for first, make in _BY_FIRST.items():
        if first in arguments:
            price = arguments.pop(first)
            return _call(make, price, **arguments)
    tiers = arguments.pop("tiers", None)
    if tiers is not None:
        arguments["tiers"] = {_threshold(above): prices for above, prices in tiers.items()}
    return _call(tokens, **arguments)


def _call(make: Callable[..., Rate], *given: Any, **arguments: Any) -> Rate:
    known = make.__kwdefaults__ or {}
    unknown = sorted(arguments.keys() - known.keys())
    if unknown:
        raise AmountError(f"{', '.join(unknown)} is unknown; beside the price there may be {', '.join(sorted(known))}")
    return make(*given, **arguments)


def _threshold(above: str) -> int:
    if not (above.isascii() and above.replace("_", "").isdecimal()):
        raise AmountError(f"a tier begins at a number of tokens, not at {above!r}")
    return int(above)
