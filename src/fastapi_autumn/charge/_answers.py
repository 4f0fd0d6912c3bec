"""What Autumn's answer to a check means for the charge, and for a customer who is refused."""

from collections.abc import Mapping
from typing import Any

from fastapi_autumn.charge._quotes import Quote
from fastapi_autumn.errors import InsufficientCredits
from fastapi_autumn.models import Balance, CheckResult
from fastapi_autumn.pricing import to_json_number

__all__ = ["insufficient", "loose_grant"]


def loose_grant(balance: Balance | None, *, held_until: int | None = None) -> dict[str, Any]:
    """Note what may not take the credits back as it gave them: a grant that belongs to no plan, and may be used up.

    So does a balance that is filled up again while the hold may still be there, which ends at `held_until` (in ms): the
    release would put last month's credits on top of this month's.
    """
    if balance is None:
        return {}
    loose = [grant for grant in balance.breakdown if grant.plan_id is None and grant.usage and not grant.unlimited]
    if not loose:
        resets_meanwhile = held_until is not None and (balance.next_reset_at or held_until) < held_until
        return {"loose_feature": balance.feature_id} if resets_meanwhile else {}
    # Which of them paid, the answer does not say. The one with least left is the first to be dropped.
    grant = min(loose, key=lambda one: one.remaining)
    return {"loose_feature": balance.feature_id, "loose_id": grant.id, "loose_until": grant.expires_at}


def insufficient(result: CheckResult, *, model: str, asked: Quote) -> InsufficientCredits:
    return InsufficientCredits(
        "The balance does not cover this call.",
        model=model,
        required=to_json_number(asked.credits if result.required_balance is None else result.required_balance),
        **asked.why(),
        balance=_shown_balance(result.balance),
        plans=_shown_plans(result.preview),
    )


def _shown_balance(balance: Balance | None) -> dict[str, Any] | None:
    """What a customer may see of a balance; grants and their ids are internal."""
    if balance is None:
        return None
    return {
        "feature_id": balance.feature_id,
        "remaining": to_json_number(balance.remaining),
        "granted": to_json_number(balance.granted),
        "usage": to_json_number(balance.usage),
        "next_reset_at": balance.next_reset_at,
        "unlimited": balance.unlimited,
        "overage_allowed": balance.overage_allowed,
    }


def _shown_plans(preview: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The plans that would help, by id and name, out of a check's preview."""
    products = (preview or {}).get("products") or []
    return [
        {"id": product.get("id"), "name": product.get("name"), "add_on": bool(product.get("is_add_on"))}
        for product in products
    ]
