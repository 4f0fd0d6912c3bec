"""What a customer's plan has to include, apart from the balance."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from fastapi_autumn.errors import NotEntitled
from fastapi_autumn.models import CustomerRecord
from fastapi_autumn.pricing import to_json_number

__all__ = ["PlanRules"]


@dataclass(frozen=True, slots=True)
class PlanRules:
    """Rules over the plans that a customer is on. They hold back calls that the balance alone would let through."""

    plans: Collection[str] = ()
    """The customer has to be on one of these."""
    feature: str | None = None
    """The customer's plans have to include this feature, as a flag or with a balance."""
    max_credits: Mapping[str, Decimal] = field(default_factory=dict)
    """Plan id to the most credits that one call may cost on it; a plan that is not named has no ceiling."""

    def __bool__(self) -> bool:
        return bool(self.plans or self.feature or self.max_credits)

    def check(self, record: CustomerRecord, *, model: str, credits: Decimal) -> None:  # noqa: A002 - Autumn's own word
        """See `fastapi_autumn.charge.Requirement`."""
        active = [subscription for subscription in record.subscriptions if subscription.status == "active"]
        on_plans = {subscription.plan_id for subscription in active} | {p.plan_id for p in record.purchases}
        if self.plans and on_plans.isdisjoint(self.plans):
            raise NotEntitled("This call needs another plan.", model=model, plans=sorted(self.plans))
        if self.feature and self.feature not in record.flags and self.feature not in record.balances:
            raise NotEntitled("The plan does not include this feature.", model=model, feature=self.feature)
        ceiling = self._ceiling({subscription.plan_id for subscription in active if not subscription.add_on})
        if ceiling is not None and credits > ceiling:
            raise NotEntitled(
                "This model costs more than the plan allows for one call.",
                model=model,
                required=to_json_number(credits),
                max_credits=to_json_number(ceiling),
            )

    def _ceiling(self, base_plans: set[str]) -> Decimal | None:
        """The highest ceiling among the customer's plans. Add-ons lift none; with no plan at all the lowest counts."""
        if not self.max_credits:
            return None
        if not base_plans:
            return min(self.max_credits.values())
        if not base_plans <= self.max_credits.keys():
            return None
        return max(self.max_credits[plan] for plan in base_plans)
