"""What differs between two catalogs: what a push would do, or what a pull would bring."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

from fastapi_autumn.catalog._catalog import Catalog
from fastapi_autumn.catalog._model import Customize, Item, Plan, Reset
from fastapi_autumn.catalog._wire import feature_to_wire, plan_to_wire, to_json

__all__ = ["Change", "FieldChange", "diff", "settled", "with_untold"]


@dataclass(frozen=True)
class FieldChange:
    """One value that differs; `path` as in `items.ai_credits.included`, None where a side has nothing."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    """What becomes of one feature, plan or variant, and for an update which fields."""

    action: Literal["create", "update", "delete"]
    kind: str
    id: str
    fields: tuple[FieldChange, ...] = ()


def diff(local: Catalog, remote: Catalog) -> list[Change]:
    """The changes that make `remote` equal to `local`, in the order of `local`; deletions last.

    Two ways to write the same, such as an allowance of 0 and none, do not differ. Neither does what Autumn never
    answers (see `with_untold`). What is archived in `remote` and absent from `local` is no change.
    """
    archived = {("variant", one.id) for one in remote.variants if one.archived}
    local, remote = settled(local), settled(remote)
    wanted, present = _entries(with_untold(local, remote)), _entries(with_untold(remote, local))
    changes: list[Change] = []
    for (kind, id_), entry in wanted.items():
        if (kind, id_) not in present:
            changes.append(Change("create", kind, id_))
        elif fields := tuple(_fields("", present[kind, id_], entry)):
            changes.append(Change("update", kind, id_, fields))
    return changes + [
        Change("delete", kind, id_)
        for (kind, id_), entry in present.items()
        if (kind, id_) not in wanted and not entry.get("archived") and (kind, id_) not in archived
    ]


def settled(catalog: Catalog) -> Catalog:
    """`catalog` as it comes back from Autumn, without what says nothing there; names and file stay."""
    wire = catalog.to_wire()
    archived = {feature.id for feature in catalog.features if feature.archived}
    features = [{**entry, "archived": entry["feature_id"] in archived} for entry in wire["features"]]
    for feature in features:
        if feature.get("default_markup") == 0:
            del feature["default_markup"]
    found = Catalog.from_wire(features, _filled_in(wire["plans"]))
    order = {key: index for index, key in enumerate(catalog.ids())}
    return Catalog(
        tuple(sorted(found.features, key=lambda one: order["feature", one.id])),
        tuple(sorted(found.plans, key=lambda one: order["plan", one.id])),
        tuple(sorted(found.variants, key=lambda one: order["variant", one.id])),
        names=catalog.names,
        file=catalog.file,
    )


def with_untold(catalog: Catalog, other: Catalog) -> Catalog:
    """`catalog` with what Autumn takes and never answers, as far as it is missing, from `other`.

    That is the proration of an item, what happens at the end of a trial, the version of a licence and whether it has
    to be paid in advance, and the interval of an item that a variant does without. A list has lost them, so that
    comparing them would find the same difference for ever, and a pull would take them out of the file.
    """
    plans, variants = {one.id: one for one in other.plans}, {one.id: one for one in other.variants}
    return replace(
        catalog,
        plans=tuple(_plan_with_untold(one, plans[one.id]) if one.id in plans else one for one in catalog.plans),
        variants=tuple(
            replace(one, customize=_customize_with_untold(one.customize, variants[one.id].customize))
            if one.id in variants
            else one
            for one in catalog.variants
        ),
    )


def _plan_with_untold(one: Plan, other: Plan) -> Plan:
    licenses = {license_.license_plan_id: license_ for license_ in other.licenses}
    return replace(
        one,
        items=_items_with_untold(one.items, other.items),
        free_trial=_from(one.free_trial, other.free_trial, "on_end"),
        licenses=tuple(
            replace(
                _from(license_, known, "version", "prepaid_only"),
                customize=_customize_with_untold(license_.customize, known.customize),
            )
            if (known := licenses.get(license_.license_plan_id))
            else license_
            for license_ in one.licenses
        ),
    )


def _customize_with_untold(one: Customize | None, other: Customize | None) -> Customize | None:
    if one is None or other is None:
        return one
    removed = one.remove_items
    if removed is not None and len(removed) == len(other.remove_items or ()):
        pairs = zip(removed, other.remove_items or (), strict=True)
        removed = tuple(_from(one, known, "interval", "interval_count") for one, known in pairs)
    return replace(
        one,
        items=None if one.items is None else _items_with_untold(one.items, other.items or ()),
        add_items=None if one.add_items is None else _items_with_untold(one.add_items, other.add_items or ()),
        remove_items=removed,
        free_trial=_from(one.free_trial, other.free_trial, "on_end"),
    )


def _items_with_untold(items: tuple[Item, ...], others: tuple[Item, ...]) -> tuple[Item, ...]:
    """Items are matched by their feature; where there are several, by all that Autumn does answer."""
    left = list(others)
    found = []
    for one in items:
        of_feature = [other for other in left if other.feature_id == one.feature_id]
        alike = [other for other in of_feature if replace(other, proration=one.proration) == one]
        match = next(iter(alike or of_feature), None)
        if match is not None:
            left.remove(match)
        found.append(_from(one, match, "proration"))
    return tuple(found)


def _from(one: Any, other: Any, *names: str) -> Any:
    """`one`, with those fields that it has nothing in from `other`, which is of the same class or nothing at all."""
    if not is_dataclass(one) or isinstance(one, type) or type(one) is not type(other):
        return one
    return replace(one, **{name: getattr(other, name) for name in names if getattr(one, name) is None})


_CONTROLS_ON = ("usage_limits", "usage_alerts")
"""The billing controls that are on unless they say otherwise."""


def _filled_in(value: Any) -> Any:
    """Add what Autumn fills in: the length of a rollover, even of one that lasts forever, and `enabled` in controls."""
    if isinstance(value, list):
        return [_filled_in(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    filled = {key: _filled_in(entry) for key, entry in value.items()}
    if "billing_controls" in filled:
        filled["billing_controls"] = _filled_controls(filled["billing_controls"])
    return {"expiry_duration_length": 1, **filled} if "expiry_duration_type" in filled else filled


def _filled_controls(controls: Any) -> Any:
    """Limits and alerts are on unless switched off, the others off unless switched on; an empty list says nothing."""
    if not isinstance(controls, dict):
        return controls
    filled = {}
    for kind, entries in controls.items():
        filled[kind] = [{"enabled": kind in _CONTROLS_ON, **entry} for entry in entries]
        for entry in filled[kind]:
            if entry.get("purchase_limit"):
                entry["purchase_limit"] = {"interval_count": 1, **entry["purchase_limit"]}
    return {kind: entries for kind, entries in filled.items() if entries}


def _entries(catalog: Catalog) -> dict[tuple[str, str], dict[str, Any]]:
    features = {("feature", one.id): {**feature_to_wire(one), "archived": one.archived} for one in catalog.features}
    held = {one.id for one in catalog.features if one.type == "metered" and not one.consumable}
    plans = {("plan", one.id): plan_to_wire(replace(one, items=_as_listed(one.items, held))) for one in catalog.plans}
    return features | plans | {("variant", one.id): to_json(one) for one in catalog.variants}


def _as_listed(items: tuple[Item, ...], held: set[str]) -> tuple[Item, ...]:
    """Items as Autumn lists them: those with a price first, and without a reset that never comes or does nothing.

    What is unlimited or `held`, such as a seat, is not reset, and what is granted once is listed in two ways.
    """
    listed = (
        replace(one, reset=None)
        if one.unlimited or one.feature_id in held or (one.price is None and one.reset == Reset("one_off"))
        else one
        for one in items
    )
    return tuple(sorted(listed, key=lambda one: one.price is None))


def _fields(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if before == after:
        return
    old, new = _keyed(before), _keyed(after)
    if old is None or new is None:
        yield FieldChange(path, before, after)
        return
    for key in dict.fromkeys([*old, *new]):
        yield from _fields(f"{path}.{key}" if path else str(key), old.get(key), new.get(key))


def _keyed(value: Any) -> Mapping[str, Any] | None:
    """A mapping as it is, and a list of entries by what each is about; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        return None
    keyed: dict[str, Any] = {}
    for entry in value:
        names = ("feature_id", "metered_feature_id", "license_plan_id", "currency")
        name = next((str(entry[name]) for name in names if name in entry), str(len(keyed) + 1))
        key, number = name, 1
        while key in keyed:
            number += 1
            key = f"{name} ({number})"
        keyed[key] = entry
    return keyed
