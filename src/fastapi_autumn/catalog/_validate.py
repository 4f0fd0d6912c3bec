"""Say what Autumn would refuse in a catalog, and what it takes but bites later.

The rules are those of the official command line and of the server, and some that neither checks. Each problem names
the object, the file, and what to write instead.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastapi_autumn.catalog._catalog import Catalog
from fastapi_autumn.catalog._feature_rules import feature_problems
from fastapi_autumn.catalog._plan_rules import Found, license_cycles, plan_problems, variant_problems
from fastapi_autumn.catalog._rules import ID, suggested_id

__all__ = ["Problem", "validate"]

_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TIER_NUMBER = re.compile(r"(^|_)(tier|level|plan|v)_?[0-9]+$")
_UNITS = frozenset({"calls", "credits", "messages", "requests", "tokens", "units", "usage"})


@dataclass(frozen=True)
class Problem:
    """One finding. An error would be refused, a warning would be taken.

    `path` names the object (`plan "pro" → items[0] (ai_credits) → price`), `file` the catalog file where there is one.
    """

    severity: Literal["error", "warning"]
    path: str
    message: str
    file: Path | None = None

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file else ""
        return f"{place}{self.path}: {self.message}"


def validate(
    catalog: Catalog, *, feature_ids: Collection[str] = (), priced_models: Collection[str] = ()
) -> list[Problem]:
    """Check `catalog`, and that it grants what an application charges for; errors come before warnings.

    Args:
        catalog: what to check.
        feature_ids: the features that the application's gates charge.
        priced_models: the models in its price list.
    """
    errors = [Problem("error", path, message, catalog.file) for path, message in _errors(catalog)]
    bites = [*_id_warnings(catalog), *_plan_warnings(catalog), *_uncovered(catalog, feature_ids, priced_models)]
    return errors + [Problem("warning", path, message, catalog.file) for path, message in bites]


def _errors(catalog: Catalog) -> Found:
    features = {feature.id: feature for feature in catalog.features}
    plans = {plan.id: plan for plan in catalog.plans}
    yield from _duplicates(catalog)
    for feature in catalog.features:
        for message in feature_problems(feature, features):
            yield f'feature "{feature.id}"', message
    for plan in catalog.plans:
        for place, message in plan_problems(plan, features, plans):
            yield f'plan "{plan.id}"{place}', message
    for variant in catalog.variants:
        for place, message in variant_problems(variant, features, plans):
            yield f'plan "{variant.base_plan_id}" → variant "{variant.id}"{place}', message
    for id_ in license_cycles(plans):
        yield f'plan "{id_}"', "its licences lead back to it; take one of them out"
    yield from _groups(catalog)


def _ids(catalog: Catalog) -> list[tuple[str, str]]:
    """Each id with what it must be unique among: a variant is a plan, too."""
    return [("feature" if kind == "feature" else "plan", id_) for kind, id_ in catalog.ids()]


def _duplicates(catalog: Catalog) -> Found:
    ids = _ids(catalog)
    for kind, id_ in dict.fromkeys(ids):
        if (times := ids.count((kind, id_))) > 1:
            yield f'{kind} "{id_}"', f"the id is used {times} times; give each {kind} its own"


def _groups(catalog: Catalog) -> Found:
    enabled: dict[str, str] = {}
    for plan in catalog.plans:
        if plan.auto_enable and not plan.add_on and not plan.archived:
            first = enabled.setdefault(plan.group, plan.id)
            if first != plan.id:
                group = f'group "{plan.group}"' if plan.group else "the group without a name"
                yield f'plan "{plan.id}"', f'{group} auto-enables "{first}" already; auto-enable one of the two'


def _id_warnings(catalog: Catalog) -> Found:
    for kind, id_ in dict.fromkeys(_ids(catalog)):
        if ID.fullmatch(id_) and not _SNAKE_CASE.fullmatch(id_):
            yield f'{kind} "{id_}"', f"ids are snake_case by convention; write {suggested_id(id_)!r}"
        if _TIER_NUMBER.search(id_):
            yield f'{kind} "{id_}"', "the id numbers a tier and will mislead when tiers change; name what it is"
    counted = {id_: None for system in catalog.features for id_ in system.credit_schema or {}}
    for id_ in counted:
        stem, _, last = id_.rpartition("_")
        if stem and last not in _UNITS and not last.isdigit():
            yield (
                f'feature "{id_}"',
                (
                    "the id ties credits to one feature of the product; with a neutral one such as "
                    f"{stem + '_usage'!r} new features need no new catalog"
                ),
            )


def _plan_warnings(catalog: Catalog) -> Found:
    for plan in catalog.plans:
        for index, item in enumerate(plan.items):
            where = f'plan "{plan.id}" → items[{index}] ({item.feature_id})'
            if item.reset is not None and item.reset.interval == "minute":
                yield (
                    where,
                    "the official command line refuses a reset every minute; write hour or longer if you use it",
                )
            if plan.auto_enable and item.price is not None:
                yield where, "the plan comes by itself, so its customers may have no card to bill; price another plan"


def _uncovered(catalog: Catalog, feature_ids: Collection[str], priced_models: Collection[str]) -> Found:
    defined = {feature.id: feature for feature in catalog.features}
    granted = {item.feature_id for plan in catalog.plans if not plan.archived for item in plan.items}
    for id_ in tuple(granted):
        if id_ in defined:
            granted.update(defined[id_].credit_schema or {})
    for id_ in feature_ids:
        if id_ not in defined:
            yield f'feature "{id_}"', "a gate charges it, but the catalog does not define it; define it"
        elif id_ not in granted:
            yield f'feature "{id_}"', "a gate charges it, but no plan grants it; add an item for it or its credits"
    if priced_models and granted.isdisjoint(feature_ids or granted):
        models = ", ".join(sorted(priced_models)[:3])
        yield "price list", f"no plan grants what its models ({models}) are charged to, so every call is refused"
