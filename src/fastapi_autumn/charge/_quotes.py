"""What a call is to cost, or what is held for it, before it is made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from fastapi_autumn.errors import Unbounded, UnknownModel
from fastapi_autumn.metering import Counts
from fastapi_autumn.models import CustomerRecord
from fastapi_autumn.pricing import CallRequest, PriceList, Rate, price_of, rounded_up
from fastapi_autumn.pricing import credits as exact_credits

__all__ = ["AskedFor", "Estimate", "Quote", "Requirement", "quote"]

Estimate = Callable[[Rate, CallRequest], Decimal | float | str]
"""What to hold for a call instead of the most that it can cost. Its name is in the 402."""

AskedFor = CallRequest | Mapping[str, Any] | bytes | str | Callable[[], Awaitable[CallRequest]] | None
"""What a call asks for: its arguments, or the JSON of it; or what reads that, for calls whose price depends on it."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a call is to cost, or with a `rate` what is held for it."""

    credits: Decimal
    rate: Rate | None = None
    bounds: Counts | None = None
    request: CallRequest | None = None
    of: str | None = None
    """What a held or given amount is: `most`, the name of an estimate, or `given`."""

    def why(self) -> dict[str, Any]:
        """What a 402 says about an amount that is no fixed price."""
        if self.of is None:
            return {}
        return {"estimate": {"of": self.of, **({} if self.bounds is None else self.bounds.shown())}}


async def quote(
    prices: PriceList,
    model: str,
    *,
    credits: Decimal | float | str | None = None,  # noqa: A002 - Autumn's own word
    request: AskedFor = None,
    estimate: Estimate | None = None,
) -> Quote:
    """Find out what a call of `model` costs.

    Raises:
        UnknownModel: It has no price, and no `credits` are given.
        Unbounded: It has a rate, and nothing says what the call can use at most.
        AmountError: `credits`, or what a function of the application's returned, is no amount.
    """
    price = await price_of(prices, model)
    if not isinstance(price, Rate):
        if credits is not None:
            return Quote(exact_credits(credits), of="given")
        if price is None:
            raise UnknownModel("There is no price for this model.", model=model)
        return Quote(price)
    asked = await request() if callable(request) else CallRequest.of(request)
    try:
        return _held_for(price.bound(asked), asked, credits, estimate)
    except Unbounded as error:
        error.detail.setdefault("model", model)
        raise


def _held_for(
    rate: Rate,
    request: CallRequest,
    credits: Decimal | float | str | None,  # noqa: A002 - as above
    estimate: Estimate | None,
) -> Quote:
    if credits is not None or estimate is not None:
        held, of = (credits, "given") if estimate is None else (estimate(rate, request), _name_of(estimate))
        return Quote(rounded_up(held), rate, _bounds(rate, request), request, of)  # type: ignore[arg-type] # one is given
    return Quote(rate.most(request), rate, rate.bounds(request), request, "most")


def _bounds(rate: Rate, request: CallRequest) -> Counts | None:
    try:
        return rate.bounds(request)
    except Unbounded:
        return None


def _name_of(estimate: Estimate) -> str:
    return str(getattr(estimate, "name", None) or getattr(estimate, "__name__", type(estimate).__name__))


class Requirement(Protocol):
    """What a customer's plan has to include, apart from the balance."""

    def check(self, record: CustomerRecord, *, model: str, credits: Decimal) -> None:  # noqa: A002 - Autumn's own word
        """Return if the customer may make the call.

        Raises:
            NotEntitled: They may not.
        """
        ...
