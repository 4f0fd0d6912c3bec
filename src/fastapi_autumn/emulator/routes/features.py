"""features.*: what can be used and counted."""

from __future__ import annotations

from typing import Any

from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.catalog import _features
from fastapi_autumn.emulator.http._call import Call, Operation


def create(call: Call) -> Any:
    """Make a feature. The id is taken as it comes: Autumn accepts any characters here."""
    fields = call.fields()
    fields.text("feature_id")
    feature = _features.read_feature(fields)
    _features.create_feature(call.store, call.catalog, feature)
    return feature


def get(call: Call) -> Any:
    """Return one feature."""
    fields = call.fields()
    feature_id = fields.text("feature_id")
    fields.check()
    return call.catalog.feature(feature_id)


def list_(call: Call) -> Any:
    """List all features, the archived ones too."""
    return {"list": list(call.catalog.features.values())}


def update(call: Call) -> Any:
    """Change a feature, archive it, or bring it back."""
    fields = call.fields()
    feature_id = call.path.get("id") or fields.text("feature_id")
    fields.check()
    feature = _features.read_feature(fields, call.catalog.feature(feature_id))
    renamed = fields.string("new_feature_id")
    if renamed and renamed != feature_id:
        if renamed in call.catalog.features:
            raise ApiError(409, "duplicate_feature_id", f"Feature {renamed} already exists")
        _features.delete_feature(call.store, call.catalog, feature_id)
        feature |= {"id": renamed}
        call.store.insert("INSERT INTO features (id, doc) VALUES (?, '')", renamed)
    _features.update_feature(call.store, feature)
    return feature


def delete(call: Call) -> Any:
    """Delete a feature that no plan and no credit system uses."""
    feature_id = call.path.get("id")
    if feature_id is None:
        fields = call.fields()
        feature_id = fields.text("feature_id")
        fields.check()
    _features.delete_feature(call.store, call.catalog, feature_id)
    return {"success": True}


ROUTES = {
    ("POST", "/v1/features.create"): Operation("features.create", create),
    ("POST", "/v1/features.get"): Operation("features.get", get, writes=False),
    ("POST", "/v1/features.list"): Operation("features.list", list_, writes=False),
    ("GET", "/v1/features"): Operation("features.list", list_, writes=False),
    ("POST", "/v1/features.update"): Operation("features.update", update),
    ("POST", "/v1/features.delete"): Operation("features.delete", delete),
    ("POST", "/v1/features/{id}"): Operation("features.update", update),
    ("DELETE", "/v1/features/{id}"): Operation("features.delete", delete),
}
