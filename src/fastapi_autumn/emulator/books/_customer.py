"""A customer as the emulator keeps it: one document with the plans, the balances and the entities that belong to it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import not_found
from fastapi_autumn.emulator.books._entitlements import Entitlement, Rollover

_DECIMALS = ("included", "prepaid", "adjustment", "balance")


@dataclass(slots=True)
class AttachedPlan:
    """A plan on a customer (`active`), or one that starts later (`scheduled`)."""

    id: str
    plan_id: str
    version: int
    group: str | None
    add_on: bool
    auto_enable: bool
    one_off: bool
    started_at: int
    status: str = "active"
    canceled_at: int | None = None
    expires_at: int | None = None
    trial_ends_at: int | None = None
    period_start: int | None = None
    period_end: int | None = None
    quantity: int = 1
    entity_id: str | None = None
    quantities: dict[str, Any] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Whether it is the one plan of its group: no add-on, and not bought once."""
        return not self.add_on and not self.one_off


@dataclass(slots=True)
class Customer:
    """Everything about one customer. `number` is its row; `id` may be null, as at Autumn."""

    number: int
    id: str | None
    created_at: int
    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    stripe_id: str | None = None
    metadata: Document = field(default_factory=dict)
    send_email_receipts: bool = False
    billing_controls: Document = field(default_factory=dict)
    config: Document = field(default_factory=dict)
    plans: list[AttachedPlan] = field(default_factory=list)
    entitlements: list[Entitlement] = field(default_factory=list)
    entities: list[Document] = field(default_factory=list)
    windows: Document = field(default_factory=dict)
    has_card: bool = False
    trials: list[str] = field(default_factory=list)
    """The plans that were tried: a trial is given once."""
    joined: list[tuple[str, int]] = field(default_factory=list)
    """The plans and versions that were attached since the customer was read; not part of the document."""

    def entity(self, entity_id: str) -> Document:
        """Return one of the customer's entities, or raise the 404."""
        for entity in self.entities:
            if entity["id"] == entity_id:
                return entity
        raise not_found("entity", entity_id)

    def metered(self, feature_ids: Iterable[str]) -> list[Entitlement]:
        """List the entitlements that hold a balance of one of these features."""
        wanted = set(feature_ids)
        return [held for held in self.entitlements if held.feature_id in wanted and not held.boolean]

    def flag(self, feature_id: str) -> Entitlement | None:
        """Return the entitlement that switches a boolean feature on."""
        return next((held for held in self.entitlements if held.feature_id == feature_id and held.boolean), None)


def to_document(customer: Customer) -> str:
    """Write a customer as JSON; amounts become strings, so that no digit is lost."""
    document = _as_dict(customer)
    del document["number"]
    document["plans"] = [_as_dict(plan) for plan in customer.plans]
    document["entitlements"] = [
        _as_dict(held) | {"rollovers": [_as_dict(left) for left in held.rollovers]} for held in customer.entitlements
    ]
    return json.dumps(document, default=str, separators=(",", ":"))


def from_document(number: int, text: str) -> Customer:
    """Read what `to_document` wrote."""
    document = json.loads(text)
    document["plans"] = [AttachedPlan(**plan) for plan in document["plans"]]
    document["entitlements"] = [_entitlement(held) for held in document["entitlements"]]
    return Customer(number=number, **document)


def _entitlement(held: Document) -> Entitlement:
    for name in _DECIMALS:
        held[name] = Decimal(held.get(name, 0))
    held["entities"] = {key: Decimal(value) for key, value in held["entities"].items()}
    held["rollovers"] = [
        Rollover(left["id"], Decimal(left["balance"]), Decimal(left["used"]), left["expires_at"], left.get("entity_id"))
        for left in held["rollovers"]
    ]
    return Entitlement(**held)


_FIELDS = {
    cls: tuple(f.name for f in fields(cls) if f.name != "joined")
    for cls in (Customer, AttachedPlan, Entitlement, Rollover)
}


def _as_dict(value: Customer | AttachedPlan | Entitlement | Rollover) -> Document:
    # dataclasses.asdict copies everything it meets, which costs more than the rest of a request.
    return {name: getattr(value, name) for name in _FIELDS[type(value)]}
