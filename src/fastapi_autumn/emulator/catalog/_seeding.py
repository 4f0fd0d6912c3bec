"""Filling an emulator from a catalog: the features and plans of a catalog.update body."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._catalog import CREDIT_SYSTEMS
from fastapi_autumn.emulator.catalog import _features, _plans, _variants
from fastapi_autumn.emulator.catalog._load import load_catalog
from fastapi_autumn.emulator.http._store import Store
from fastapi_autumn.emulator.http._validation import Fields


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
        catalog, fields = load_catalog(store), Fields(body)
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
        done.append(_put_plan(store, body, now=now))
        for variant in body.get("variants") or []:
            plan = _put_plan(store, _variants.write_out(body, variant), now=now)
            _plans.keep_plan(store, plan | _variants.describe(body["plan_id"], variant), new=False)
    return done


def _put_plan(store: Store, body: Document, *, now: int) -> Document:
    catalog, fields = load_catalog(store), Fields(body)
    plan_id = fields.text("plan_id")
    fields.check()
    if plan_id in catalog.plans:
        return _plans.update_plan(store, catalog, fields, now=now)
    plan = _plans.read_plan(fields, catalog, now=now) | {"id": plan_id}
    _plans.keep_plan(store, plan, new=True)
    return plan
