"""For the tests of applications: charges that are made by hand, without Autumn and without an outbox."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fastapi_autumn.charge import Budget, Charge, Failed
from fastapi_autumn.models import Customer
from fastapi_autumn.pricing import CallRequest, ModelPrices, Prices, Rate, price_list
from fastapi_autumn.pricing import credits as exact_credits
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Entry

__all__ = ["fake_budget", "fake_charge"]


def fake_charge(
    model: str = "gpt-4o",
    *,
    credits: Decimal | float | str = 1,  # noqa: A002 - Autumn's own word
    customer: Customer | str = "customer",
    rate: Rate | None = None,
    request: CallRequest | Mapping[str, Any] | None = None,
    failed: Failed = "nothing",
    settings: AutumnSettings | None = None,
) -> Charge:
    """Return a charge that behaves as a real one does, and tells nobody.

        charge = fake_charge(credits=5)
        answer(charge)
        assert (charge.closed, charge.cost) == (True, 0)

    What it comes to is in `closed`, `cost` and `counts`, at once. Nobody ends it but the code under test, or
    `charge.finish(outcome)`. `rate` makes it a metered one, for which `credits` are held.
    """
    return Charge(
        _entry(customer, credits),
        rate=rate,
        request=None if request is None else CallRequest.of(request),
        failed=failed,
        **_of(customer, model, settings),
    )


def fake_budget(
    credits: Decimal | float | str = 100,  # noqa: A002 - Autumn's own word
    *,
    prices: Prices | None = None,
    customer: Customer | str = "customer",
    failed: Failed = "used",
    settings: AutumnSettings | None = None,
) -> Budget:
    """Return a budget for steps of the models in `prices`, as `fake_charge` returns a charge."""
    return Budget(
        _entry(customer, credits),
        total=exact_credits(credits),
        prices=ModelPrices({"gpt-4o": 1}) if prices is None else price_list(prices),
        failed=failed,
        **_of(customer, "budget", settings),
    )


def _entry(customer: Customer | str, credits: Decimal | float | str) -> Entry:  # noqa: A002 - as above
    amount = exact_credits(credits)
    return Entry(
        charge_id="fake",
        customer_id=_customer(customer).id,
        feature_id="ai_usage",
        entity_id=None,
        credits=amount,
        cost=Decimal(0),
        reason="",
        charging="hold",
        created_at=0,
        taken=amount,
    )


def _of(customer: Customer | str, model: str, settings: AutumnSettings | None) -> dict[str, Any]:
    # Not read from the environment: a test by hand says itself what it depends on.
    chosen = AutumnSettings.model_construct() if settings is None else settings
    return {"customer": _customer(customer), "model": model, "settings": chosen, "end": _tell_nobody}


def _customer(customer: Customer | str) -> Customer:
    return Customer(customer) if isinstance(customer, str) else customer


def _tell_nobody(_entry: Entry) -> None:
    return
