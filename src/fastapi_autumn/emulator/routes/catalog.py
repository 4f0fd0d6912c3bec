"""catalog.preview_update and catalog.update: the whole catalog at once, as the official CLI pushes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.books._catalog import Catalog
from fastapi_autumn.emulator.catalog import _features, _plans, _seeding, _variants
from fastapi_autumn.emulator.catalog._load import load_catalog
from fastapi_autumn.emulator.http._call import Call, Operation
from fastapi_autumn.emulator.http._validation import Fields

_SCALARS = ("name", "description", "group", "add_on", "auto_enable", "archived")


@dataclass(slots=True)
class _Push:
    features: list[Document]
    plans: list[Document]
    gone_features: list[str]
    gone_plans: list[str]


def preview_update(call: Call) -> Any:
    """Tell what catalog.update with the same body would do."""
    push = _read(call)
    planned = {body["feature_id"]: body for body in push.features}
    known = {**call.catalog.features, **{key: _features.read_feature(Fields(body)) for key, body in planned.items()}}
    return {
        "plan_changes": [
            *(_plan_change(call, body, known) for body in push.plans),
            *(_plan_removal(call, plan_id) for plan_id in push.gone_plans),
        ],
        "feature_changes": [
            *(_feature_change(call.catalog, body) for body in push.features),
            *(_feature_removal(call, feature_id, push) for feature_id in push.gone_features),
        ],
        "reward_changes": [],
        "referral_program_changes": [],
    }


def update(call: Call) -> Any:
    """Create and change features and plans; delete what is not mentioned, or archive it where it is in use."""
    push = _read(call)
    features = _seeding.put_features(call.store, push.features)
    plans = _seeding.put_plans(call.store, push.plans, now=call.now)
    for plan_id in push.gone_plans:
        _remove_plan(call, plan_id)
    for feature_id in sorted(push.gone_features, key=lambda key: key not in call.catalog.credit_systems):
        _remove_feature(call, feature_id)
    return {"plans": plans, "features": features, "rewards": [], "referral_programs": []}


def _read(call: Call) -> _Push:
    fields = call.fields()
    features, plans = fields.objects("features"), fields.objects("plans")
    for feature in features:
        feature.text("feature_id")
    for plan in plans:
        plan.text("plan_id")
        for variant in plan.objects("variants"):
            variant.text("variant_plan_id")
            customize = variant.object("customize")
            if customize:
                for name in ("items", "add_items", "remove_items"):
                    customize.objects(name)
    keep_all = fields.boolean("skip_deletions", default=True)
    kept_features, kept_plans = set(fields.strings("skip_feature_ids")), set(fields.strings("skip_plan_ids"))
    fields.check()
    feature_bodies: list[Document] = fields.raw("features") or []
    plan_bodies: list[Document] = [plan for plan in fields.raw("plans") or [] if plan["plan_id"] not in kept_plans]
    kept_features |= {body["feature_id"] for body in feature_bodies}
    for body in fields.raw("plans") or []:
        kept_plans |= {body["plan_id"]} | {variant["variant_plan_id"] for variant in body.get("variants") or []}
    return _Push(
        features=feature_bodies,
        plans=plan_bodies,
        gone_features=[key for key in call.catalog.features if not keep_all and key not in kept_features],
        gone_plans=[key for key in call.catalog.plans if not keep_all and key not in kept_plans],
    )


def _plan_change(call: Call, body: Document, features: dict[str, Document]) -> Document:
    change = _change_of(call, body, features)
    variants = [_variant_change(call, body, variant, features) for variant in body.get("variants") or []]
    return change | {"variants": variants}


def _variant_change(call: Call, base: Document, variant: Document, features: dict[str, Document]) -> Document:
    """Tell what becomes of a variant: changed by itself (`direct`), because its base changes (`propagated`), or not."""
    body = _variants.write_out(base, variant)
    change = _change_of(call, body, features)
    before = call.catalog.plans.get(body["plan_id"])
    own = {"name": body["name"], **_variants.describe(base["plan_id"], variant)}
    itself = before is None or any(before.get(key) != value for key, value in own.items())
    source = None if change["action"] == "none" else "direct" if itself else "propagated"
    return change | {
        "version": before["version"] if before else 1,
        "name": body["name"],
        "will_apply": source is not None,
        "update_source": source,
        "conflicts": [],
    }


def _change_of(call: Call, body: Document, features: dict[str, Document]) -> Document:
    catalog = load_catalog(call.store)
    catalog.features = features
    before = catalog.plans.get(body["plan_id"])
    after = _plans.read_plan(Fields(body), catalog, now=call.now, before=before)
    change = _blank_change(call, body["plan_id"])
    if before is None:
        return change | {"action": "created"}
    old, new = _plans.content_of(before), _plans.content_of(after)
    scalars = {key: before[key] for key in _SCALARS if before[key] != after[key]}
    if old == new and not scalars:
        return change | {"action": "none"}
    items = _item_changes(old["items"], new["items"])
    versionable = old != new and change["has_customers"]
    change |= {"action": "updated", "versionable": versionable, "item_changes": items, "previous_attributes": scalars}
    if old["price"] != new["price"]:
        change["price_change"] = {"previous": before["price"], "current": after["price"]}
    return change


def _item_changes(old: list[Document], new: list[Document]) -> list[Document]:
    before, after = ({item["feature_id"]: item for item in items} for items in (old, new))
    changes = [{"action": "deleted", "feature_id": key} for key in before if key not in after]
    changes += [{"action": "created", "feature_id": key} for key in after if key not in before]
    changes += [{"action": "updated", "feature_id": key} for key in after if before.get(key, after[key]) != after[key]]
    return [change | {"previous_attributes": {}} for change in changes]


def _blank_change(call: Call, plan_id: str) -> Document:
    plan = call.catalog.plans.get(plan_id)
    customers = _plans.customers_on(call.store, plan) if plan else 0
    return {
        "plan_id": plan_id,
        "customize": None,
        "previous_attributes": None,
        "item_changes": [],
        "has_customers": customers > 0,
        "customer_count": customers,
        "versionable": False,
        "license_changes": [],
        "license_parents": [],
        "variants": [],
        "other_versions": [
            {"plan_id": plan_id, "version": version["version"]}
            for version in call.catalog.versions.get(plan_id, [])
            if plan and version["version"] != plan["version"]
        ],
        "action": "none",
        "will_archive": False,
    }


def _plan_removal(call: Call, plan_id: str) -> Document:
    change = _blank_change(call, plan_id)
    return change | {"action": "deleted", "will_archive": change["has_customers"]}


def _feature_change(catalog: Catalog, body: Document) -> Document:
    before = catalog.features.get(body["feature_id"])
    after = _features.read_feature(Fields(body), before)
    changed = {} if before is None else {key: before.get(key) for key in after if before.get(key) != after[key]}
    action = "create" if before is None else "update" if changed else "none"
    return _change(body["feature_id"], action) | {"previous_attributes": changed or None}


def _feature_removal(call: Call, feature_id: str, push: _Push) -> Document:
    """Deleting plans and credit systems in the same push frees the features they use."""
    catalog = load_catalog(call.store)
    for plan_id in push.gone_plans:
        if not _plans.customers_on(call.store, catalog.plans[plan_id]):
            del catalog.versions[plan_id]
    for key in push.gone_features:
        if key != feature_id and _features.feature_users(catalog, key) is None:
            catalog.features.pop(key, None)
    used = _features.feature_users(catalog, feature_id)
    return _change(feature_id, "remove") | {"will_archive": used is not None}


def _change(feature_id: str, action: str) -> Document:
    return {
        "feature_id": feature_id,
        "action": action,
        "will_archive": False,
        "blocked": False,
        "blocked_reason": None,
        "previous_attributes": None,
    }


def _remove_plan(call: Call, plan_id: str) -> None:
    catalog = load_catalog(call.store)
    try:
        _plans.delete_plan(call.store, catalog, plan_id, all_versions=True)
    except ApiError:
        _plans.keep_plan(call.store, catalog.plans[plan_id] | {"archived": True}, new=False)


def _remove_feature(call: Call, feature_id: str) -> None:
    catalog = load_catalog(call.store)
    try:
        _features.delete_feature(call.store, catalog, feature_id)
    except ApiError:
        _features.update_feature(call.store, catalog.features[feature_id] | {"archived": True})


ROUTES = {
    ("POST", "/v1/catalog.preview_update"): Operation("catalog.preview_update", preview_update, writes=False),
    ("POST", "/v1/catalog.update"): Operation("catalog.update", update),
}
