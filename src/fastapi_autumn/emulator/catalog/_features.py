"""Reading features from requests, and keeping them."""

from __future__ import annotations

import json

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, invalid_request
from fastapi_autumn.emulator.books._catalog import CREDIT_SYSTEMS, FEATURE_TYPES, Catalog
from fastapi_autumn.emulator.http._store import Store
from fastapi_autumn.emulator.http._validation import Fields

_FREE = -100
"""The markup in per cent that makes a model cost nothing."""


def read_feature(fields: Fields, before: Document | None = None) -> Document:
    """Read a feature from features.create, or from features.update with the feature as it was."""
    name = fields.string("name", required=before is None)
    kind = fields.choice("type", FEATURE_TYPES, required=before is None)
    schema = _read_credit_schema(fields)
    consumable = fields.boolean("consumable") if "consumable" in fields else None
    archived = fields.boolean("archived") if "archived" in fields else None
    events = fields.strings("event_names") if "event_names" in fields else None
    if before is None and kind == "credit_system" and not schema:
        fields.fail("credit_schema", "Please specify the credit schema for the feature.")
    fields.check()
    feature = dict(before or {"id": fields.text("feature_id"), "event_names": [], "archived": False})
    given = {"name": name, "type": kind, "consumable": consumable, "archived": archived, "event_names": events}
    feature |= {key: value for key, value in given.items() if value is not None}
    if feature["type"] in CREDIT_SYSTEMS:
        feature["consumable"] = True
        feature["credit_schema"] = schema if "credit_schema" in fields else feature.get("credit_schema", [])
    feature["consumable"] = bool(feature.get("consumable")) and feature["type"] != "boolean"
    if feature["type"] == "ai_credit_system":
        if "model_markups" in fields:
            models = fields.named_objects("model_markups")
            feature["model_markups"] = {name: _read_model_markup(entry) for name, entry in models.items()}
        if "provider_markups" in fields:
            providers = fields.named_objects("provider_markups")
            feature["provider_markups"] = {name: {"markup": _markup(entry)} for name, entry in providers.items()}
        if "default_markup" in fields:
            feature["default_markup"] = fields.number("default_markup", nullable=True, least=_FREE)
    else:
        # What only such a system has goes when it becomes something else.
        for markup in ("model_markups", "provider_markups", "default_markup"):
            feature.pop(markup, None)
    display = fields.object("display")
    if display:
        feature["display"] = {key: display.string(key, nullable=True) for key in ("singular", "plural")}
    fields.check()
    return feature


def create_feature(store: Store, catalog: Catalog, feature: Document) -> None:
    """Keep a new feature; 409 if its id is taken."""
    if feature["id"] in catalog.features:
        raise ApiError(409, "duplicate_feature_id", f"Feature {feature['id']} already exists")
    store.insert("INSERT INTO features (id, doc) VALUES (?, ?)", feature["id"], json.dumps(feature))
    store.touch("catalog")


def update_feature(store: Store, feature: Document) -> None:
    """Replace a feature."""
    store.run("UPDATE features SET doc = ? WHERE id = ?", json.dumps(feature), feature["id"])
    store.touch("catalog")


def feature_users(catalog: Catalog, feature_id: str) -> str | None:
    """Say what keeps a feature from being deleted, or None."""
    for system in catalog.features.values():
        if any(entry["metered_feature_id"] == feature_id for entry in system.get("credit_schema") or []):
            return f"Feature {feature_id} is used by credit system {system['id']}"
    for versions in catalog.versions.values():
        if any(item["feature_id"] == feature_id for plan in versions for item in plan["items"]):
            return (
                f"Feature {feature_id} is used in a product. You must delete the product first, or archive it instead."
            )
    return None


def delete_feature(store: Store, catalog: Catalog, feature_id: str) -> None:
    """Delete a feature that nothing uses."""
    catalog.feature(feature_id)
    used = feature_users(catalog, feature_id)
    if used:
        raise invalid_request(used, status=409)
    store.run("DELETE FROM features WHERE id = ?", feature_id)
    store.touch("catalog")


def _read_model_markup(fields: Fields) -> Document:
    parts = {
        "markup": _markup(fields) if "markup" in fields else None,
        "input_cost": fields.number("input_cost", nullable=True, least=0),
        "output_cost": fields.number("output_cost", nullable=True, least=0),
    }
    return {key: value for key, value in parts.items() if value is not None}


def _markup(fields: Fields) -> float | None:
    return fields.number("markup", required=True, least=_FREE)


def _read_credit_schema(fields: Fields) -> list[Document]:
    return [
        {
            "metered_feature_id": entry.text("metered_feature_id"),
            "credit_cost": entry.number("credit_cost", required=True),
        }
        for entry in fields.objects("credit_schema")
    ]
