"""The price list: which model a name finds, and what a wrong list says."""

from decimal import Decimal

import pytest

from fastapi_autumn.errors import PriceListError
from fastapi_autumn.pricing import ModelPrices

PRICES = ModelPrices(
    {
        "gpt-4o": 3,
        "gpt-4-0613": 9,
        "o3-2025-04-16": 7,
        "claude-sonnet-4": Decimal("4.5"),
        "openrouter/auto": "0.5",
        "azure/gpt-4o": 2,
    },
    aliases={"sonnet": "claude-sonnet-4", "best": "sonnet"},
)


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("gpt-4o", "3"),
        ("sonnet", "4.5"),
        ("best", "4.5"),
        ("openai/gpt-4o", "3"),
        ("azure/gpt-4o", "2"),
        ("azure/gpt-4o-2024-11-20", "2"),
        ("openrouter/auto", "0.5"),
        ("anthropic/sonnet", "4.5"),
        ("gpt-4o-2024-11-20", "3"),
        ("claude-sonnet-4-20250514", "4.5"),
        ("claude-sonnet-4@20250514", "4.5"),
        ("anthropic/claude-sonnet-4-20250514", "4.5"),
        ("gpt-4-0613", "9"),
        ("o3-2025-04-16", "7"),
    ],
)
def test_a_name_finds_its_price(name, price):
    """Exact names come first, then aliases, then the name without provider, then without the date."""
    assert PRICES.get_model_credits(name) == Decimal(price)
    assert name in PRICES


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4",  # gpt-4-0613 is listed, and is another model
        "o3",  # only a snapshot is listed
        "o3-2025-04-17",
        "gpt-4o-0613",
        "gpt-4o-2024-13-20",
        "gpt-4o-20240230",
        "gpt-4o-2024-1120",
        "gpt-4o-1120-11-20",
        "gpt-4o-2024-11-20-2024-11-20",
        "GPT-4o",
        "a/b/gpt-4o",
        "/gpt-4o",
        "gpt-4o/",
        "openai/",
        "-2024-11-20",
        "",
        " gpt-4o",
        "gpt-4o\n",
        "x/gpt-4o\0",
        "x" * 257,
        "x" * 300 + "/gpt-4o",
    ],
)
def test_a_name_that_is_not_listed_has_no_price(name):
    """What the rules do not reach is unknown; a near miss never gets some other model's price."""
    assert PRICES.get_model_credits(name) is None
    assert name not in PRICES


def test_the_list_shows_what_it_holds():
    """Iteration, len, repr and the two mappings show the listed models, and nothing can be changed through them."""
    assert list(PRICES)[:2] == ["gpt-4o", "gpt-4-0613"]
    assert len(PRICES) == 6
    assert PRICES.models["openrouter/auto"] == Decimal("0.5")
    assert PRICES.aliases == {"sonnet": "claude-sonnet-4", "best": "sonnet"}
    assert repr(PRICES) == "<ModelPrices: 6 models, 2 aliases>"
    assert 3 not in PRICES
    with pytest.raises(TypeError):
        PRICES.models["gpt-4o"] = Decimal(0)  # type: ignore[index] # the point of the test


def test_with_models_makes_a_new_list():
    """Code can add to a list or replace a price; the first list stays as it was."""
    more = PRICES.with_models({"gpt-4o": 5, "llama": 1}, aliases={"cheap": "llama"})
    assert [more.get_model_credits(name) for name in ("gpt-4o", "cheap", "best")] == [5, 1, Decimal("4.5")]
    assert PRICES.get_model_credits("gpt-4o") == 3
    assert "llama" not in PRICES


def test_the_callers_mapping_is_copied():
    """A later change to the dict that was passed in does not change a price."""
    models, aliases = {"gpt-4o": 3}, {"omni": "gpt-4o"}
    prices = ModelPrices(models, aliases=aliases)
    models["gpt-4o"] = 1
    aliases["x"] = "gpt-4o"
    assert prices.get_model_credits("omni") == 3
    assert "x" not in prices


@pytest.mark.parametrize(
    ("models", "aliases", "reason"),
    [
        ({}, {}, "at least one model"),
        ({"m": 0}, {}, "price of 'm' is no price: .*more than zero; write credits, such as 3"),
        ({"m": True}, {}, "price of 'm' is no price"),
        ({"m": float("nan")}, {}, "price of 'm' is no price"),
        ({"": 1}, {}, "'' is no model name"),
        ({" m": 1}, {}, "' m' is no model name"),
        ({"m\n": 1}, {}, r"'m\\n' is no model name"),
        ({3: 1}, {}, "3 is no model name"),
        ({"m" * 257: 1}, {}, "at most 256 characters, not 257"),
        ({"m": 1}, {"m": "m"}, "'m' is listed as a model and as an alias"),
        ({"m": 1}, {"a": "b"}, "'a' leads to 'b', which is not listed"),
        ({"m": 1}, {"a": "b", "b": "a"}, "goes in a circle: a -> b -> a"),
        ({"m": 1}, {"a": "a"}, "goes in a circle: a -> a"),
        ({"m": 1}, {"a": 3}, "'a' must be the name of a model"),
        ({"m": 1}, {"": "m"}, "'' is no model name"),
    ],
)
def test_a_wrong_list_is_refused(models, aliases, reason):
    """A list that could not be charged from never comes to be, and the message says what to write."""
    with pytest.raises(PriceListError, match=reason):
        ModelPrices(models, aliases=aliases)
