"""Suggested prices: dollars per call to credits."""

import subprocess
import sys
from decimal import Decimal

import pytest

from fastapi_autumn.errors import AmountError
from fastapi_autumn.pricing import Counts, tokens
from fastapi_autumn.pricing.suggestions import market_rate, suggest

CALL = {"input_tokens": 1000, "output_tokens": 500, "dollars_per_credit": Decimal("0.001")}


def test_dollars_become_credits():
    """Cost over margin over the value of a credit; gpt-4o at $2.50 and $10 a million tokens costs $0.0075 a call."""
    at_cost = suggest("gpt-4o", **CALL)
    with_margin = suggest("openai/gpt-4o-2024-11-20", **CALL, margin=Decimal("0.5"))
    assert at_cost is not None
    assert with_margin is not None
    assert (at_cost.priced_as, at_cost.dollars_per_call, at_cost.credits) == (
        "openai/gpt-4o",
        Decimal("0.0075"),
        Decimal("7.5"),
    )
    assert with_margin.credits == 15


def test_credits_are_rounded_up_to_two_digits():
    """A suggestion is easy to read and never below cost."""
    found = suggest("gpt-4o", **{**CALL, "input_tokens": 123_456})
    assert found is not None
    assert found.dollars_per_call / CALL["dollars_per_credit"] == Decimal("313.64")
    assert str(found.credits) == "320"


def test_a_model_that_nobody_knows_has_no_suggestion():
    """Unknown names, with or without a provider, give None."""
    assert suggest("no-such-model", **CALL) is None
    assert suggest("nobody/no-such-model", **CALL) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"dollars_per_credit": Decimal(0)},
        {"dollars_per_credit": Decimal("nan")},
        {"margin": Decimal(1)},
        {"margin": Decimal("-0.1")},
    ],
)
def test_wrong_terms_are_refused(wrong):
    """A worthless credit or a margin that no price reaches is an error, not a division by zero."""
    with pytest.raises(AmountError, match="must be"):
        suggest("gpt-4o", **{**CALL, **wrong})


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    """Where genai-prices is not installed, the message is the pip line."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ImportError, match=r"pip install 'fastapi-autumn\[prices\]'"):
        suggest("gpt-4o", **CALL)


def test_the_table_of_models_is_not_loaded_unasked():
    """Importing the price list, or even the suggestions, does not import genai_prices."""
    code = "import sys, fastapi_autumn.pricing.suggestions; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_free_model_has_no_suggestion():
    """A model that costs its operator nothing gives no basis for a price."""
    assert suggest("azure/phi-4-reasoning:free", **CALL) is None


def test_market_prices_as_a_rate():
    """A margin of a half doubles the provider's dollars, and a cent a credit makes hundreds of them; cached apart."""
    rate = market_rate("gpt-4o", dollars_per_credit=Decimal("0.01"), margin=Decimal("0.5"), max_output=16_384)
    assert rate == tokens(input=500, output=2000, cached=250, max_output=16_384, max_input=128_000)
    long = market_rate("gemini-2.5-pro", dollars_per_credit=Decimal("0.01"))
    assert long.cost(Counts(input=200_001)) / long.cost(Counts(input=200_000)) > Decimal("1.9")


def test_market_prices_that_nobody_knows():
    """A model that genai-prices does not know has no rate, and terms that are none are refused."""
    assert market_rate("house-model", dollars_per_credit=Decimal(1)) is None
    with pytest.raises(AmountError):
        market_rate("gpt-4o", dollars_per_credit=Decimal(0))
