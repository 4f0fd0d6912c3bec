"""What the tokens of a model cost: an AI credit system counts in dollars, with a markup on the model's list price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import invalid_request
from fastapi_autumn.emulator.books._entitlements import ZERO, amount, number, rounded

# The count in a request, the rate it is priced by, and the rate that stands in for one that is not listed.
_KINDS = {
    "input_tokens": ("input", "input"),
    "output_tokens": ("output", "output"),
    "cache_read_tokens": ("cache_read", "input"),
    "cache_write_tokens": ("cache_write", "input"),
    "audio_input_tokens": ("audio_input", "input"),
    "audio_output_tokens": ("audio_output", "output"),
    "reasoning_tokens": ("reasoning", "output"),
}
KINDS = tuple(_KINDS)
_PER = Decimal(1_000_000)
_GENAI_NAMES = {
    "input": "input_mtok", "output": "output_mtok", "cache_read": "cache_read_mtok", "cache_write": "cache_write_mtok",
    "audio_input": "input_audio_mtok", "audio_output": "output_audio_mtok",
}  # fmt: skip

Rates: TypeAlias = Mapping[str, Decimal]
"""Dollars per million tokens: `input`, `output`, and `cache_read`, `audio_input` and so on where they differ."""

RateTable: TypeAlias = Callable[[str, str], Rates | None]
"""Finds the rates of a model, by provider and model name; None for an unknown model."""

_BUILT_IN: dict[str, Rates] = {
    "openai/gpt-4o": {"input": Decimal("2.5"), "output": Decimal(10), "cache_read": Decimal("1.25")},
    "openai/gpt-4o-mini": {"input": Decimal("0.15"), "output": Decimal("0.6"), "cache_read": Decimal("0.08")},
    "anthropic/claude-sonnet-4-5": {
        "input": Decimal(3), "output": Decimal(15), "cache_read": Decimal("0.3"), "cache_write": Decimal("3.75"),
    },
}  # fmt: skip


@dataclass(slots=True, frozen=True)
class TokenPrice:
    """The cost of one call to a model in dollars, and what the event says about how it came about."""

    cost: Decimal
    properties: Document


def built_in_rates(provider: str, model: str) -> Rates | None:
    """Look up one of the three models that are known without a price list."""
    return _BUILT_IN.get(f"{provider}/{model}")


def price(system: Document, model_id: str, usage: Mapping[str, int], table: RateTable) -> TokenPrice:
    """Price the tokens of one call. The markup of the model goes before the provider's, that before the default."""
    provider, _, model = model_id.partition("/")
    own = (system.get("model_markups") or {}).get(model_id) or {}
    rates = _rates(own, provider, model, table)
    if rates is None:
        raise invalid_request(f"Model {model_id} not found in models.dev pricing data")
    markup, source = _markup(system, own, provider)
    full = {rate: rates.get(rate, rates[fallback]) for rate, fallback in _KINDS.values()}
    base = sum((count * full[_KINDS[name][0]] for name, count in usage.items()), ZERO) / _PER
    cost = rounded(base * (1 + markup / 100)).normalize() if base else ZERO
    properties: Document = {"model": model_id, **usage}
    properties |= {
        "cost": number(cost),
        "base_cost": number(base),
        "markup": number(markup),
        "markup_source": source,
        "tier_applied": False,
        "rates": {name: number(rate) for name, rate in full.items()},
    }
    return TokenPrice(cost, properties)


def genai_rates(provider: str, model: str, now: int) -> Rates | None:
    """Look a model up in genai-prices, where that is installed, as of `now` (ms); else among the built-in ones."""
    try:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return built_in_rates(provider, model)
    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    listed: Any = found.get_prices(datetime.fromtimestamp(now / 1_000, UTC))
    rates = {name: getattr(listed, field, None) for name, field in _GENAI_NAMES.items()}
    # A price with steps counts from its first one.
    flat = {name: amount(getattr(rate, "base", rate)) for name, rate in rates.items() if rate is not None}
    return flat if "input" in flat and "output" in flat else None


def _rates(own: Document, provider: str, model: str, table: RateTable) -> Rates | None:
    if own.get("input_cost") is not None and own.get("output_cost") is not None:
        return {"input": amount(own["input_cost"]), "output": amount(own["output_cost"])}
    return table(provider, model)


def _markup(system: Document, own: Document, provider: str) -> tuple[Decimal, str]:
    if own.get("markup") is not None:
        return amount(own["markup"]), "model"
    of_provider = (system.get("provider_markups") or {}).get(provider) or {}
    if of_provider.get("markup") is not None:
        return amount(of_provider["markup"]), "provider"
    return amount(system.get("default_markup") or 0), "default"
