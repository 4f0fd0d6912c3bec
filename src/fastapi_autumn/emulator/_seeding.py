"""Filling an emulator from a catalog: the features and plans of a catalog.update body."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from fastapi_autumn.emulator import _features, _plans
from fastapi_autumn.emulator._catalog import CREDIT_SYSTEMS, Catalog
from fastapi_autumn.emulator._errors import not_found
from fastapi_autumn.emulator._store import Document, Store
from fastapi_autumn.emulator._validation import Fields


@runtime_checkable
class WireCatalog(Protocol):
    """A catalog that can write itself as the body of catalog.update."""

    def to_wire(self) -> dict[str, Any]:
        """Return `{"features": [...], "plans": [...]}`."""
        ...


def wire_of(catalog: WireCatalog | Document) -> Document:
    """Return a catalog as the body of catalog.update."""
    return catalog.to_wire() if isinstance(catalog, WireCatalog) else catalog


def seed(store: Store, wire: Document, *, now: int) -> None:
    """Create or change the features and plans of `wire`, and remember it for the next reset."""
    with store.transaction():
        put_features(store, wire.get("features") or [])
        put_plans(store, wire.get("plans") or [], now=now)
        store.put_ticket("seed", "catalog", wire)


def put_features(store: Store, bodies: list[Document]) -> list[Document]:
    """Create or change features; credit systems last, because they name the others."""
    done = {}
    for body in sorted(bodies, key=lambda body: body.get("type") in CREDIT_SYSTEMS):
        catalog, fields = Catalog(store), Fields(body)
        before = catalog.features.get(fields.text("feature_id"))
        feature = _features.read_feature(fields, before)
        if before is None:
            _features.create_feature(store, catalog, feature)
        else:
            _features.update_feature(store, feature)
        done[feature["id"]] = feature
    return [done[body["feature_id"]] for body in bodies]


def put_plans(store: Store, bodies: list[Document], *, now: int) -> list[Document]:
    """Create or change plans, and their variants."""
    done = []
    for body in bodies:
        catalog, fields = Catalog(store), Fields(body)
        plan_id = fields.text("plan_id")
        fields.check()
        if plan_id in catalog.plans:
            plan = _plans.update_plan(store, catalog, fields, now=now)
        else:
            plan = _plans.read_plan(fields, catalog, now=now) | {"id": plan_id}
            _plans.keep_plan(store, plan, new=True)
        done.append(plan)
        for variant in body.get("variants") or []:
            _put_variant(store, plan_id, body, variant, now=now)
    return done


def _put_variant(store: Store, base_id: str, base: Document, variant: Document, *, now: int) -> None:
    """A variant is the plan with some parts customised, kept as a plan of its own that names its base."""
    body = {key: value for key, value in base.items() if key not in ("variants", "auto_enable")}
    changed = variant.get("customize") or {}
    body |= {"plan_id": variant["variant_plan_id"], "name": variant.get("name") or base["name"], **changed}
    (plan,) = put_plans(store, [body], now=now)
    if base_id not in Catalog(store).plans:
        raise not_found("product", base_id)
    _plans.keep_plan(store, plan | {"base_variant_id": base_id}, new=False)
