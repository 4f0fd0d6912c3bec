"""Suggest prices in credits from what the models really cost, as genai-prices knows it (extra `prices`).

The figures of genai-prices are estimates from public price lists: a starting point for a price list, not a bill.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext

from fastapi_autumn.errors import AmountError

__all__ = ["Suggestion", "suggest"]

_DIGITS = 2


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
    if not (dollars_per_credit.is_finite() and dollars_per_credit > 0):
        raise AmountError("the dollar value of a credit must be more than zero, such as 0.01")
    if not (margin.is_finite() and 0 <= margin < 1):
        raise AmountError("the margin must be at least 0 and less than 1, such as 0.3")
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
            found = calc_price(usage, name, provider_id=provider_id)
        except LookupError:
            continue
        dollars = found.total_price
        if not dollars:
            return None
        return Suggestion(
            model=model,
            priced_as=f"{found.provider.id}/{found.model.id}",
            dollars_per_call=dollars,
            credits=_rounded_up(dollars / (1 - margin) / dollars_per_credit),
        )
    return None


def _rounded_up(amount: Decimal) -> Decimal:
    with localcontext(prec=_DIGITS, rounding=ROUND_CEILING):
        rounded = +amount
    return Decimal(f"{rounded.normalize():f}")
