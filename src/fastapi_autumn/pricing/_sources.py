"""Where the prices of a service come from, whichever way they are given."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.pricing._amounts import credits as exact_credits
from fastapi_autumn.pricing._models import ModelPrices, Price
from fastapi_autumn.pricing._rates import Rate

__all__ = ["Price", "PriceList", "Prices", "price_list", "price_of"]


class PriceList(Protocol):
    """What a model call costs.

    A list that also has a method `get_model_price(model)`, which returns an amount, a `Rate`, or None, and which may be
    async, is asked by that instead.
    """

    def get_model_credits(self, model: str) -> Decimal | None:
        """Return the price of one call in credits, or None for a model that is not on the list."""
        ...


_Given = Decimal | float | str | Rate
Prices = (
    PriceList
    | Mapping[str, _Given]
    | str
    | Path
    | Callable[[str], _Given | None]
    | Callable[[str], Awaitable[_Given | None]]
)


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
    return _PriceFunction(prices) if callable(prices) else prices


async def price_of(prices: PriceList, model: str) -> Price | None:
    """Return what a call of `model` costs, or None for a model that is not on the list.

    Raises:
        AmountError: A function of the application's returned what is no price.
    """
    if isinstance(prices, ModelPrices):
        return prices.get_model_price(model)
    ask = getattr(prices, "get_model_price", None)
    if ask is None:
        return prices.get_model_credits(model)
    price = ask(model)
    if inspect.isawaitable(price):
        price = await price
    return price if price is None or isinstance(price, Rate) else exact_credits(price)


@dataclass(frozen=True, slots=True)
class _PriceFunction:
    function: Callable[[str], Any]

    def get_model_price(self, model: str) -> Any:
        return self.function(model)

    def get_model_credits(self, model: str) -> Decimal | None:
        price = self.function(model)
        if inspect.iscoroutine(price):
            price.close()
            raise ConfigurationError("The function for prices is async, so there is no price without waiting for it.")
        return None if price is None or isinstance(price, Rate) else exact_credits(price)
