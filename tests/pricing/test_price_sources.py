"""What an application may give for its prices."""

from decimal import Decimal

import pytest

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.pricing import ModelPrices, price_list, price_of


def by_length(model):
    return len(model) if model != "unheard-of" else None


class Table:
    """A price list of an application's own."""

    def get_model_credits(self, model):
        return Decimal(4)


class PricedByCall:
    """An object that is called."""

    def __call__(self, model):
        return "0.5"


@pytest.mark.parametrize(
    ("given", "price"),
    [
        ({"gpt-4o": 3}, "3"),
        (ModelPrices({"gpt-4o": 2}), "2"),
        (by_length, "6"),
        (PricedByCall(), "0.5"),
        (Table(), "4"),
    ],
)
def test_prices_in_any_form(given, price):
    """A mapping, a function, and any object that knows prices are a price list."""
    assert Decimal(price) == price_list(given).get_model_credits("gpt-4o")


def test_prices_in_a_file(tmp_path):
    """A path is a TOML file, as text or as a path."""
    file = tmp_path / "prices.toml"
    file.write_text('[models]\n"gpt-4o" = 3\n')
    for given in (file, str(file)):
        assert price_list(given).get_model_credits("gpt-4o") == 3


def test_function_may_not_know_a_model():
    """None out of a function is a model without a price."""
    assert price_list(by_length).get_model_credits("unheard-of") is None


def test_no_prices_at_all_is_told_at_start():
    """Without prices nothing can be charged, and the error names both ways to give them."""
    with pytest.raises(ConfigurationError, match=r"pass prices=.*AUTUMN_PRICES"):
        price_list(None)


class Asking:
    """An object that is called and asks a database."""

    async def __call__(self, model):
        return 3


async def ask(model):
    return 3


@pytest.mark.parametrize("given", [ask, Asking()])
async def test_async_function(given):
    """A function that asks a database is waited for; where nobody can wait, the error says so."""
    prices = price_list(given)
    assert await price_of(prices, "gpt-4o") == 3
    with pytest.raises(ConfigurationError, match="is async"):
        prices.get_model_credits("gpt-4o")
