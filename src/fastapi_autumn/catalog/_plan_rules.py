"""The rules for plans, their licences, their billing controls and their variants."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias, get_args

from fastapi_autumn.catalog._item_rules import item_problems
from fastapi_autumn.catalog._model import BillingInterval, Customize, Feature, FreeTrial, Plan, Unset, Variant
from fastapi_autumn.catalog._rules import name_problems, number_problem

__all__ = ["Found", "license_cycles", "plan_problems", "variant_problems"]

Found: TypeAlias = Iterator[tuple[str, str]]
"""Pairs of a place, to put after the name of the object, and what is wrong there."""

_ONE_PER_FEATURE = ("spend_limits", "usage_limits", "overage_allowed")
_CONTROLS = (*_ONE_PER_FEATURE, "auto_topups", "usage_alerts")


def plan_problems(plan: Plan, features: Mapping[str, Feature], plans: Mapping[str, Plan]) -> Found:
    """Where and why Autumn would refuse `plan`."""
    for message in name_problems(plan.id, plan.name):
        yield "", message
    if plan.price is not None:
        yield from _price(plan.price.amount, plan.price.interval)
        if plan.auto_enable and plan.price.amount:
            yield "", "auto_enable gives a priced plan to every new customer; leave out auto_enable or the price"
    if plan.free_trial is not None:
        yield from _trial(plan.free_trial)
        if plan.auto_enable and plan.free_trial.card_required:
            yield "", "auto_enable cannot ask for a card; write card_required=False or leave out auto_enable"
    yield from item_problems(plan.items, features, "items")
    yield from _controls(plan, features)
    yield from _licenses(plan, features, plans)


def variant_problems(variant: Variant, features: Mapping[str, Feature], plans: Mapping[str, Plan]) -> Found:
    """Where and why Autumn would refuse `variant`."""
    for message in name_problems(variant.id, variant.name):
        yield "", message
    if variant.base_plan_id not in plans:
        yield "", f'its base plan "{variant.base_plan_id}" is not defined in the catalog; define it at module level'
    if variant.customize is not None:
        yield from _customize(variant.customize, features)


def license_cycles(plans: Mapping[str, Plan]) -> Iterator[str]:
    """The ids of plans whose licences lead back to them."""
    for start, plan in plans.items():
        seen: set[str] = set()
        pending = [license_.license_plan_id for license_ in plan.licenses if license_.license_plan_id != start]
        while pending:
            reached = pending.pop()
            if reached in plans and reached not in seen:
                seen.add(reached)
                pending += (license_.license_plan_id for license_ in plans[reached].licenses)
        if start in seen:
            yield start


def _price(amount: object, interval: object) -> Found:
    if wrong := number_problem(amount):
        yield " → price", f"amount {wrong}"
    if interval not in get_args(BillingInterval):
        yield " → price", f"interval {interval!r} is unknown; write one of {', '.join(get_args(BillingInterval))}"


def _trial(trial: FreeTrial) -> Found:
    if wrong := number_problem(trial.duration_length, least=1, whole=True):
        yield " → free_trial", f"duration_length {wrong}"
    if trial.duration_type not in {"day", "month", "year"}:
        yield " → free_trial", f"duration_type {trial.duration_type!r} is unknown; write day, month or year"


def _licenses(plan: Plan, features: Mapping[str, Feature], plans: Mapping[str, Plan]) -> Found:
    seen: set[str] = set()
    for index, license_ in enumerate(plan.licenses):
        where, id_ = f" → licenses[{index}] ({license_.license_plan_id})", license_.license_plan_id
        if id_ in seen:
            yield where, "the same plan is listed twice; keep one entry"
        elif id_ == plan.id:
            yield where, "a plan cannot license itself; name another plan"
        elif id_ not in plans:
            yield where, f'plan "{id_}" is not defined in the catalog; define it or correct the id'
        if wrong := number_problem(license_.included, whole=True):
            yield where, f"included {wrong}"
        if license_.customize is not None:
            yield from ((where + place, message) for place, message in _customize(license_.customize, features))
        seen.add(id_)


def _controls(plan: Plan, features: Mapping[str, Feature]) -> Found:
    for name, entries in (plan.billing_controls or {}).items():
        if name not in _CONTROLS:
            yield " → billing_controls", f"{name!r} is unknown; write one of {', '.join(_CONTROLS)}"
        seen: set[str] = set()
        for index, entry in enumerate(entries):
            named = entry.get("feature_id")
            id_ = named.id if isinstance(named, Feature) else named
            where = f" → billing_controls → {name}[{index}]"
            if id_ is None:
                if name not in {"spend_limits", "usage_alerts"}:
                    yield where, "feature_id is missing; write which feature it is about"
                continue
            if id_ not in features:
                yield where, f'feature "{id_}" is not defined in the catalog; define it or correct the id'
            if id_ in seen and name in _ONE_PER_FEATURE:
                yield where, f'there is an entry for "{id_}" already; keep one for each feature'
            seen.add(id_)


def _customize(customize: Customize, features: Mapping[str, Feature]) -> Found:
    if customize.price is not None and not isinstance(customize.price, Unset):
        yield from _price(customize.price.amount, customize.price.interval)
    if customize.items is not None and (customize.add_items is not None or customize.remove_items is not None):
        yield "", "items replaces them all; use it without add_items and remove_items"
    yield from item_problems(customize.items or (), features, "items")
    yield from item_problems(customize.add_items or (), features, "add_items")
    for index, removed in enumerate(customize.remove_items or ()):
        if removed.feature_id is not None and removed.feature_id not in features:
            where = f" → remove_items[{index}]"
            yield where, f'feature "{removed.feature_id}" is not defined in the catalog; define it or correct the id'
