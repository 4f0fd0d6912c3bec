"""Tokens of models: what they cost, and where the prices come from."""

from decimal import Decimal

import pytest

from emulator.conftest import START, EmulatorClient
from fastapi_autumn.emulator import Emulator, built_in_rates

CATALOG = {
    "features": [
        {
            "feature_id": "dollars",
            "name": "Dollars",
            "type": "ai_credit_system",
            "default_markup": 20,
            "provider_markups": {"openai": {"markup": 50}},
            "model_markups": {"acme/free": {"markup": -100}, "acme/own": {"input_cost": 4, "output_cost": 8}},
        }
    ],
    "plans": [
        {
            "plan_id": "free",
            "name": "Free",
            "auto_enable": True,
            "items": [{"feature_id": "dollars", "included": 100, "reset": {"interval": "month"}}],
        }
    ],
}


async def cost(model, rates=built_in_rates, **tokens):
    """Return what a million input tokens of a model take from the balance."""
    emulator = Emulator(":memory:", catalog=CATALOG, rates=rates)
    async with EmulatorClient(emulator) as autumn:
        await autumn.ok("customers.get_or_create", customer_id="ann")
        usage = {"input_tokens": 1_000_000, "output_tokens": 0, **tokens}
        answer = await autumn.call("balances.track_tokens", customer_id="ann", model_id=model, **usage)
    emulator.close()
    return answer.json().get("value", answer.json().get("message"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai/gpt-4o", 3.75),
        ("anthropic/claude-sonnet-4-5", 3.6),
        ("acme/own", 4.8),
        ("openai/unknown", "Model openai/unknown not found in models.dev pricing data"),
    ],
)
async def test_the_markup_of_the_model_goes_before_the_provider_s_and_that_before_the_default(model, expected):
    """List price plus 50 % for the provider, 20 % for the others, or the model's own costs."""
    assert await cost(model) == expected


async def test_a_price_table_can_be_replaced():
    """A function from provider and model to rates takes the place of the built-in ones; -100 % is free."""

    def table(provider, model):
        return {"input": Decimal(7), "output": Decimal(9)} if provider == "acme" else None

    assert await cost("acme/anything", table) == 8.4
    assert await cost("acme/anything", table, output_tokens=1_000_000, reasoning_tokens=1_000_000) == 30
    assert await cost("acme/free", table) == 0
    assert "not found" in await cost("openai/gpt-4o", table)


async def test_prices_come_from_genai_prices_where_it_is_installed():
    """The default table knows models that are not built in."""
    emulator = Emulator(":memory:", catalog=CATALOG)
    async with EmulatorClient(emulator) as autumn:
        await autumn.ok("customers.get_or_create", customer_id="ann")
        body = {"customer_id": "ann", "input_tokens": 1_000_000, "output_tokens": 0}
        known = await autumn.ok("balances.track_tokens", model_id="anthropic/claude-opus-4-0", **body)
        unknown = await autumn.call("balances.track_tokens", model_id="anthropic/claude-none", **body)
    emulator.close()
    assert known["value"] == 18
    assert unknown.status_code == 400


async def test_without_genai_prices_three_models_are_known(monkeypatch):
    """The package works without the extra: a missing genai-prices is no error."""
    import sys

    from fastapi_autumn.emulator.books._tokens import genai_rates

    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    assert genai_rates("openai", "gpt-4o", START) == built_in_rates("openai", "gpt-4o")
    assert genai_rates("openai", "o3", START) is None


async def test_tokens_of_an_entity_that_is_not_there_are_refused():
    """As with every other use: 404, and nothing is taken."""
    emulator = Emulator(":memory:", catalog=CATALOG)
    async with EmulatorClient(emulator) as autumn:
        await autumn.ok("customers.get_or_create", customer_id="ann")
        body = {"model_id": "openai/gpt-4o", "input_tokens": 1_000_000, "output_tokens": 0, "entity_id": "gone"}
        answer = await autumn.call("balances.track_tokens", customer_id="ann", **body)
        assert (answer.status_code, answer.json()["code"]) == (404, "entity_not_found")
        assert await autumn.remaining(feature_id="dollars") == 100
    emulator.close()
