"""Charging as if (`AUTUMN_MODE=observe`): all is looked up and counted, nobody is refused and nothing is taken."""

import logging
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fastapi_autumn import telemetry
from fastapi_autumn.charge._answers import insufficient
from fastapi_autumn.charge._budget import Budget
from fastapi_autumn.charge._charge import Charge
from fastapi_autumn.charge._charges import Charges
from fastapi_autumn.charge._charging import not_taken
from fastapi_autumn.charge._quotes import Quote, Requirement
from fastapi_autumn.errors import Refused, RequestRejected, Unavailable
from fastapi_autumn.models import Balance, Customer
from fastapi_autumn.pricing import Rate, price_of
from fastapi_autumn.pricing import credits as exact_credits
from fastapi_autumn.settlement import Charging, Entry, ledger

__all__ = ["ObservingCharges", "note_observed"]

_log = logging.getLogger("fastapi_autumn")


class ObservingCharges(Charges):
    """Opens charges over nothing. Each says what it would have come to, and whether it would have been refused."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Made once at each start. Nobody is to observe by accident.
        _log.warning(
            "AUTUMN_MODE is observe: nobody is refused and nothing is taken. What would have been refused is in this "
            "log, in the metric autumn.observed and in the header Autumn-Observed."
        )

    async def open(self, customer: Customer, model: str, **options: Any) -> Charge:
        """See `Charges.open`. What it would refuse is in the charge's `would_refuse`.

        Raises:
            AmountError: An amount that the application gave is none.
            ConfigurationError: As `Charges.open`.
        """
        try:
            return await super().open(customer, model, **options)
        except (Refused, Unavailable, RequestRejected) as error:
            price = await price_of(self._prices, model)
            rate = price if isinstance(price, Rate) else None
            given = options.get("credits")
            amount = given if given is not None else price if isinstance(price, Decimal) else 0
            charge = self.unasked(customer, model, code_of(error), credits=amount, rate=rate, why=str(error))
            charge.verified = not isinstance(error, Unavailable)
            return charge

    async def open_budget(
        self,
        customer: Customer,
        credits: Decimal | float | str,  # noqa: A002 - Autumn's own word
        *,
        name: str = "budget",
        **options: Any,
    ) -> Budget:
        """See `Charges.open_budget`. Steps that do not fit are let through as well."""
        would_refuse = None
        try:
            budget = await super().open_budget(customer, credits, name=name, **options)
        except (Refused, Unavailable, RequestRejected) as error:
            would_refuse = code_of(error)
            self._note(would_refuse, customer, name, str(error))
            budget = self.free_budget(customer, credits, name=name)
        return self._letting_through(budget, would_refuse)

    def unasked(
        self,
        customer: Customer,
        model: str,
        code: str,
        *,
        credits: Decimal | float | str = 0,  # noqa: A002 - as above
        rate: Rate | None = None,
        budget: Decimal | None = None,
        why: str = "",
    ) -> Charge:
        """Return a charge for a call that would have been refused, and note that it would have been."""
        self._note(code, customer, model, why)
        if budget is not None:
            return self._letting_through(self.free_budget(customer, budget, name=model), code)
        amount = exact_credits(credits) if credits else Decimal(0)
        entry = not_taken(self._entry(customer, self.settings.feature_id, amount, None, "deduct"))
        charge = Charge(entry, rate=rate, **self._of(customer, model))
        charge.would_refuse = code
        return charge

    async def _open(
        self,
        customer: Customer,
        model: str,
        asked: Quote,
        *,
        feature_id: str,
        entity_id: str | None,
        properties: Mapping[str, Any] | None,
        charging: Charging,
        requirement: Requirement | None,
        confirm_customer: bool,
    ) -> tuple[Entry, Balance | None, bool]:
        unavailable = await self._admit(customer, model, asked.credits, requirement, confirm=confirm_customer)
        if unavailable is not None:
            raise unavailable
        entry = self._entry(customer, feature_id, asked.credits, entity_id, charging)
        # Neither `send_event` nor a lock: Autumn looks, and moves nothing.
        result = await self._client.balances.check(
            customer.id,
            feature_id,
            required_balance=asked.credits,
            entity_id=entity_id,
            properties=ledger.opening(entry.charge_id, model=model, charging=charging, given=properties),
            with_preview=True,
        )
        if not result.allowed:
            raise insufficient(result, model=model, asked=asked)
        return not_taken(entry), result.balance, True

    def _end(self, entry: Entry) -> None:
        _log.info(
            "observed: charge %s of %s would have cost %s credits (%s)",
            entry.charge_id,
            entry.customer_id,
            entry.cost,
            entry.reason,
        )

    def _letting_through(self, budget: Budget, would_refuse: str | None) -> Budget:
        budget.would_refuse = would_refuse
        budget.let_through(lambda code, why: self._note(code, budget.customer, budget.model, why))
        return budget

    def _note(self, code: str, customer: Customer, model: str, why: str) -> None:
        note_observed(code, f"a call of {model} by {customer.id}", why)


def code_of(error: Refused | Unavailable | RequestRejected) -> str:
    """Return the code of the refusal that a caller would have got."""
    return error.code if isinstance(error, Refused) else "billing_unavailable"


def note_observed(code: str, what: str, why: str) -> None:
    """Log and count what would have been refused."""
    telemetry.observed.add(1, {"code": code})
    _log.warning("observed: %s would have been refused: %s%s", what, code, f" ({why})" if why else "")
