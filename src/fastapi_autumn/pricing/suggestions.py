"""Suggest prices in credits from what the models really cost, as genai-prices knows it (extra `prices`).

The figures of genai-prices are estimates from public price lists: a starting point for a price list, not a bill.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Any

from fastapi_autumn.errors import AmountError
from fastapi_autumn.pricing import Rate, rounded_up, tokens

__all__ = ["Suggestion", "market_rate", "suggest"]

_DIGITS = 2
_ENOUGH_DIGITS = 40
_MARKET_NAMES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}
"""Kinds of tokens, and what genai-prices calls their dollars per million."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a typical call of a model costs its operator, and what to charge for it.

    `priced_as` names the model, as `provider/model`, whose prices were used: genai-prices finds near names too.
    """

    model: str
    priced_as: str
    dollars_per_call: Decimal
    credits: Decimal


def suggest(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    dollars_per_credit: Decimal,
    margin: Decimal = Decimal(0),
) -> Suggestion | None:
    """Suggest the credits for a call of `model` that reads and writes that many tokens.

    `margin` is the share of the revenue that is left after paying the provider: at 0.5, a call that costs 1 cent is
    charged at 2. The credits are rounded up to two digits, so they never fall below cost. None for a model that
    genai-prices does not know or lists as free.

    Raises:
        AmountError: `dollars_per_credit` is not above zero, or `margin` is not in 0 up to, but without, 1.
        ImportError: the extra `prices` is not installed.
    """
    _check_terms(dollars_per_credit, margin)
    found = _find(model, input_tokens=input_tokens, output_tokens=output_tokens)
    dollars = Decimal(0) if found is None else found.total_price
    if not dollars:
        return None
    return Suggestion(
        model=model,
        priced_as=f"{found.provider.id}/{found.model.id}",
        dollars_per_call=dollars,
        credits=_rounded_up(dollars / (1 - margin) / dollars_per_credit),
    )


def market_rate(
    model: str,
    *,
    dollars_per_credit: Decimal,
    margin: Decimal = Decimal(0),
    max_output: int | None = None,
    max_input: int | None = None,
) -> Rate | None:
    """Return a price by tokens in credits: what the provider of `model` takes, with a margin.

    The terms are those of `suggest`, and the limits those of `fastapi_autumn.pricing.tokens`; `max_input` is the
    model's context window where that is known. None for a model that genai-prices does not know, or lists as free. The
    figures are those of the installed genai-prices: they change when it is upgraded, and at no other time.

    Raises:
        AmountError: As `suggest`.
        ImportError: The extra `prices` is not installed.
    """
    _check_terms(dollars_per_credit, margin)
    found = _find(model, input_tokens=1, output_tokens=1)
    if found is None:
        return None
    listed = {kind: getattr(found.model_price, name, None) for kind, name in _MARKET_NAMES.items()}
    with localcontext(prec=_ENOUGH_DIGITS, rounding=ROUND_CEILING):
        credits_a_dollar = 1 / (1 - margin) / dollars_per_credit
        first = {kind: _in_credits(price, credits_a_dollar) for kind, price in listed.items() if price is not None}
        tiers: dict[int, dict[str, Decimal | float | str]] = {}
        for kind, price in listed.items():
            for tier in getattr(price, "tiers", ()):
                tiers.setdefault(tier.start, {})[kind] = _in_credits(tier.price, credits_a_dollar)
    if not any(first.values()):
        return None
    return tokens(**first, tiers=tiers, max_output=max_output, max_input=max_input or found.model.context_window)


def _in_credits(price: Any, credits_a_dollar: Decimal) -> Decimal:
    return rounded_up(getattr(price, "base", price) * credits_a_dollar)


def _check_terms(dollars_per_credit: Decimal, margin: Decimal) -> None:
    if not (dollars_per_credit.is_finite() and dollars_per_credit > 0):
        raise AmountError("the dollar value of a credit must be more than zero, such as 0.01")
    if not (margin.is_finite() and 0 <= margin < 1):
        raise AmountError("the margin must be at least 0 and less than 1, such as 0.3")


def _find(model: str, *, input_tokens: int, output_tokens: int) -> Any:
    """Return what genai-prices says about a call, or None where it does not know the model."""
    try:
        # Loads a table of every known model, hence only when a suggestion is asked for.
        from genai_prices import Usage, calc_price  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "suggestions need genai-prices; install it with: pip install 'fastapi-autumn[prices]'"
        ) from error
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    provider, _, rest = model.partition("/")
    # Routers such as OpenRouter have models with a slash in their name, hence the second reading.
    readings = [(rest, provider), (model, None)] if rest else [(model, None)]
    for name, provider_id in readings:
        try:
            return calc_price(usage, name, provider_id=provider_id)
        except LookupError:
            continue
    return None


def _rounded_up(amount: Decimal) -> Decimal:
    with localcontext(prec=_DIGITS, rounding=ROUND_CEILING):
        rounded = +amount
    return Decimal(f"{rounded.normalize():f}")
