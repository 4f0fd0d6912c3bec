"""Where the prices of a service come from, whichever way they are given."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.pricing._amounts import credits as exact_credits
from fastapi_autumn.pricing._models import ModelPrices

__all__ = ["PriceList", "Prices", "price_list"]


class PriceList(Protocol):
    """What a model call costs."""

    def get_model_credits(self, model: str) -> Decimal | None:
        """Return the price of one call in credits, or None for a model that is not on the list."""
        ...


Prices = PriceList | Mapping[str, Decimal | float | str] | str | Path | Callable[[str], Decimal | float | str | None]


def price_list(prices: Prices | None) -> PriceList:
    """Make a price list of whatever an application has.

    Raises:
        ConfigurationError: There is none, or it cannot be one.
    """
    if prices is None:
        raise ConfigurationError(
            'There is no price list: pass prices={"gpt-4o": 3} to Autumn, or set AUTUMN_PRICES to a TOML file.'
        )
    if isinstance(prices, str | Path):
        return ModelPrices.from_toml(prices)
    if isinstance(prices, Mapping):
        return ModelPrices(prices)
    if not callable(prices):
        return prices
    if inspect.iscoroutinefunction(prices) or inspect.iscoroutinefunction(getattr(prices, "__call__", None)):  # noqa: B004 - an object may be called, too
        raise ConfigurationError(
            "A function for prices is called for each charge and cannot be async. Look the prices up beforehand, and "
            "pass a function that reads them from memory."
        )
    return _PriceFunction(prices)


@dataclass(frozen=True, slots=True)
class _PriceFunction:
    function: Callable[[str], Decimal | float | str | None]

    def get_model_credits(self, model: str) -> Decimal | None:
        price = self.function(model)
        return None if price is None else exact_credits(price)
