"""What differs between two catalogs: what a push would do, or what a pull would bring."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi_autumn.catalog._catalog import Catalog
from fastapi_autumn.catalog._wire import feature_to_wire, plan_to_wire, to_json

__all__ = ["Change", "FieldChange", "diff", "settled"]


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

    Two ways to write the same, such as an allowance of 0 and none, do not differ. What is archived in `remote` and
    absent from `local` is no change.
    """
    wanted, present = _entries(settled(local)), _entries(settled(remote))
    changes: list[Change] = []
    for (kind, id_), entry in wanted.items():
        if (kind, id_) not in present:
            changes.append(Change("create", kind, id_))
        elif fields := tuple(_fields("", present[kind, id_], entry)):
            changes.append(Change("update", kind, id_, fields))
    return changes + [
        Change("delete", kind, id_)
        for (kind, id_), entry in present.items()
        if (kind, id_) not in wanted and not entry.get("archived")
    ]


def settled(catalog: Catalog) -> Catalog:
    """`catalog` as it comes back from Autumn, without what says nothing there; names and file stay."""
    wire = catalog.to_wire()
    archived = {feature.id for feature in catalog.features if feature.archived}
    features = [{**entry, "archived": entry["feature_id"] in archived} for entry in wire["features"]]
    found = Catalog.from_wire(features, _filled_in(wire["plans"]))
    order = {key: index for index, key in enumerate(catalog.ids())}
    return Catalog(
        tuple(sorted(found.features, key=lambda one: order["feature", one.id])),
        tuple(sorted(found.plans, key=lambda one: order["plan", one.id])),
        tuple(sorted(found.variants, key=lambda one: order["variant", one.id])),
        names=catalog.names,
        file=catalog.file,
    )


def _filled_in(value: Any) -> Any:
    """Add what Autumn fills in: each rollover comes back with a length, even one that lasts forever."""
    if isinstance(value, list):
        return [_filled_in(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    filled = {key: _filled_in(entry) for key, entry in value.items()}
    return {"expiry_duration_length": 1, **filled} if "expiry_duration_type" in filled else filled


def _entries(catalog: Catalog) -> dict[tuple[str, str], dict[str, Any]]:
    features = {("feature", one.id): {**feature_to_wire(one), "archived": one.archived} for one in catalog.features}
    plans = {("plan", one.id): plan_to_wire(one) for one in catalog.plans}
    return features | plans | {("variant", one.id): to_json(one) for one in catalog.variants}


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
        key = name
        while key in keyed:
            key = f"{name} ({len(keyed) + 1})"
        keyed[key] = entry
    return keyed
