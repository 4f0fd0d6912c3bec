"""Adding events up: values by bin of time and by group, and what was taken from each balance."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeAlias

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._clock import DAY, HOUR, add_interval
from fastapi_autumn.emulator.books._entitlements import ZERO, number, rounded

Groups: TypeAlias = dict[str, Decimal]

_OTHER = "Other"


def bins_of(start: int, end: int, size: str) -> list[int]:
    """List the beginnings of the hours, days, weeks or months (UTC) between two times."""
    bins = [_floor(start, size)]
    while (following := add_interval(bins[-1], size)) <= end:
        bins.append(following)
    return bins


def add_up(
    bins: list[int],
    features: list[str],
    rows: Iterable[tuple[int, str, float, int, object]],
    *,
    grouped: bool,
    most: int,
) -> Document:
    """Add rows of (hour, feature, value, count, group) up, as events.aggregate shows them.

    Grouped, each bin shows its `most` largest groups and the others as one, and counts what has no group in `total`
    only.
    """
    values = [dict.fromkeys(features, ZERO) for _ in bins]
    groups: list[dict[str, Groups]] = [{feature: {} for feature in features} for _ in bins]
    total: Document = {}
    for hour, feature, value, count, group in rows:
        place, amount = bisect(bins, hour) - 1, Decimal(repr(value))
        entry = total.setdefault(feature, {"count": 0, "sum": ZERO})
        entry["count"] += count
        entry["sum"] += amount
        if grouped and group in (None, ""):
            continue
        values[place][feature] += amount
        groups[place][feature][str(group)] = groups[place][feature].get(str(group), ZERO) + amount
    for entry in total.values():
        entry["sum"] = number(rounded(entry["sum"]))
    series: list[Document] = [
        {"period": period, "values": _shown(in_bin)} for period, in_bin in zip(bins, values, strict=True)
    ]
    if grouped:
        kept = [_largest(in_bin, most) for in_bin in groups]
        names = dict.fromkeys(name for in_bin in kept for by_group in in_bin.values() for name in by_group)
        for period, in_bin in zip(series, kept, strict=True):
            period["grouped_values"] = {
                feature: _shown(dict.fromkeys(names, ZERO) | by_group) for feature, by_group in in_bin.items()
            }
    return {"list": series, "total": total}


def add_up_deductions(
    bins: list[int],
    rows: Iterable[tuple[int, Document, float, int, object]],
    *,
    grouped: bool,
    most: int,
    cost: Callable[[str, str], float | None] | None = None,
) -> list[Document]:
    """Add up what events took out of balances: rows of (hour, balance, credits, count, group).

    `balance` is what is shown of it, with its `feature_id` and `feature_type`. `cost` says what a unit of a group,
    which is a feature then, costs in credits of a balance. Bins in which nothing was taken are left out.
    """
    found: dict[int, Document] = {}
    groups: dict[int, dict[str, Groups]] = {}
    for hour, balance, taken, count, group in rows:
        place, amount = bisect(bins, hour) - 1, Decimal(repr(taken))
        shown = dict(balance)
        feature_id, kind, balance_id = shown.pop("feature_id"), shown.pop("feature_type"), shown["balance_id"]
        blank = {"feature_type": kind, "deducted": ZERO, "events": 0, "balances": {}}
        feature = found.setdefault(place, {}).setdefault(feature_id, blank)
        part = feature["balances"].setdefault(balance_id, shown | {"deducted": ZERO, "events": 0})
        for entry in (feature, part):
            entry["deducted"] += amount
            entry["events"] += count
        by_group = groups.setdefault(place, {}).setdefault(balance_id, {})
        by_group[str(group)] = by_group.get(str(group), ZERO) + amount
    periods: list[Document] = []
    for place, features in sorted(found.items()):
        owners = {
            balance_id: feature_id for feature_id, feature in features.items() for balance_id in feature["balances"]
        }
        for feature in features.values():
            feature["balances"] = list(feature["balances"].values())
            for entry in (feature, *feature["balances"]):
                entry["deducted"] = number(rounded(entry["deducted"]))
        periods.append({"period": bins[place], "values": features})
        if grouped:
            periods[-1]["grouped_values"] = {
                balance_id: {
                    name: {"deducted": taken}
                    | ({"credit_cost": cost(name, owners[balance_id])} if cost and name != _OTHER else {})
                    for name, taken in _shown(by_group).items()
                }
                for balance_id, by_group in _largest(groups[place], most).items()
            }
    return periods


def _largest(in_bin: dict[str, Groups], most: int) -> dict[str, Groups]:
    """Keep the largest groups of one bin, over all its features, and put the others together."""
    sizes: Counter[str] = Counter()
    for by_group in in_bin.values():
        sizes.update(by_group)
    kept = set(sorted(sizes, key=lambda name: (-sizes[name], name))[:most])
    folded: dict[str, Groups] = {}
    for feature, by_group in in_bin.items():
        folded[feature] = {name: value for name, value in by_group.items() if name in kept}
        others = [value for name, value in by_group.items() if name not in kept]
        if others:
            folded[feature][_OTHER] = folded[feature].get(_OTHER, ZERO) + sum(others)
    return folded


def _shown(values: Groups) -> dict[str, int | float]:
    return {name: number(rounded(value)) for name, value in values.items()}


def _floor(time: int, size: str) -> int:
    if size in ("hour", "day"):
        length = HOUR if size == "hour" else DAY
        return time // length * length
    day = datetime.fromtimestamp(time // 1_000, UTC).replace(hour=0, minute=0, second=0)
    if size == "month":
        return int(day.replace(day=1).timestamp()) * 1_000
    return int(day.timestamp()) * 1_000 - day.weekday() * DAY
