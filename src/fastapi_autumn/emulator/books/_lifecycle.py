"""What happens to a customer's plans: attaching, replacing, cancelling, and what time does to them."""

from __future__ import annotations

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books import _balances
from fastapi_autumn.emulator.books._catalog import Catalog, is_free, is_one_off
from fastapi_autumn.emulator.books._clock import add_interval
from fastapi_autumn.emulator.books._customer import AttachedPlan, Customer
from fastapi_autumn.emulator.books._entitlements import ZERO, Entitlement
from fastapi_autumn.emulator.books._grants import entitlements_of
from fastapi_autumn.emulator.books._rollovers import take_along


def create(catalog: Catalog, customer: Customer, now: int) -> None:
    """Give a new customer the plans that are enabled automatically."""
    for plan in catalog.plans.values():
        if plan["auto_enable"] and not plan["archived"]:
            attach(catalog, customer, plan, now=now)


def attach(
    catalog: Catalog,
    customer: Customer,
    plan: Document,
    *,
    now: int,
    quantities: dict[str, float] | None = None,
    paid: bool = False,
    entity_id: str | None = None,
) -> AttachedPlan:
    """Put a plan on a customer at once; in a group it takes the place of the plan that is there."""
    attached = new_plan(catalog, plan, now=now, quantities=quantities, entity_id=entity_id)
    offered = offered_trial(customer, plan)
    if offered:
        customer.trials.append(plan["id"])
        attached.trial_ends_at = add_interval(now, offered["duration_type"], offered["duration_length"])
        attached.period_start, attached.period_end = now, attached.trial_ends_at
    elif paid and plan["price"] and plan["price"]["interval"] != "one_off":
        price = plan["price"]
        attached.period_start = now
        attached.period_end = add_interval(now, price["interval"], price.get("interval_count", 1))
    _start(catalog, customer, attached, plan)
    return attached


def offered_trial(customer: Customer, plan: Document) -> Document | None:
    """Return the trial that a plan begins with, unless the customer has had it."""
    return None if plan["id"] in customer.trials else plan.get("free_trial")


def new_plan(
    catalog: Catalog,
    plan: Document,
    *,
    now: int,
    quantities: dict[str, float] | None = None,
    entity_id: str | None = None,
) -> AttachedPlan:
    """Make the record of a plan on a customer."""
    return AttachedPlan(
        id=catalog.new_id("cus_prod"),
        plan_id=plan["id"],
        version=plan["version"],
        group=plan["group"],
        add_on=plan["add_on"],
        auto_enable=plan["auto_enable"],
        one_off=is_one_off(plan),
        started_at=now,
        entity_id=entity_id,
        quantities=dict(quantities or {}),
    )


def current_plan(customer: Customer, plan: Document, entity_id: str | None = None) -> AttachedPlan | None:
    """Return the active plan that `plan` would replace: the one of its group, unless it is an add-on or bought once."""
    if plan["add_on"] or is_one_off(plan):
        return None
    for attached in customer.plans:
        if (
            attached.status == "active"
            and attached.is_main
            and attached.group == plan["group"]
            and attached.entity_id == entity_id
        ):
            return attached
    return None


def end(customer: Customer, attached: AttachedPlan) -> None:
    """Take a plan off a customer, with the balances that came with it."""
    customer.plans.remove(attached)
    customer.entitlements = [held for held in customer.entitlements if held.product_id != attached.id]


def expire(catalog: Catalog, customer: Customer, attached: AttachedPlan, now: int) -> None:
    """End a plan whose time is up, and go on with what was scheduled after it or with the group's automatic plan."""
    end(customer, attached)
    follower = _follower(customer, attached) if attached.is_main else None
    if follower is None:
        _fall_back(catalog, customer, attached, now)
        return
    follower.started_at = now
    customer.plans.remove(follower)
    _start(catalog, customer, follower, catalog.plan(follower.plan_id, follower.version))


def cancel(catalog: Catalog, customer: Customer, attached: AttachedPlan, now: int) -> None:
    """End a plan now, and go on with the group's automatic plan, whatever was scheduled.

    A plan that was to start later is forgotten, and the one that it would have replaced goes on.
    """
    end(customer, attached)
    if attached.status == "scheduled":
        current = current_plan(customer, catalog.plan(attached.plan_id, attached.version), attached.entity_id)
        if current is not None:
            current.canceled_at = current.expires_at = None
        return
    if attached.is_main:
        unschedule(customer, attached.group, attached.entity_id)
    _fall_back(catalog, customer, attached, now)


def cancel_later(catalog: Catalog, customer: Customer, attached: AttachedPlan, now: int) -> None:
    """Let a plan end with its cycle, and the group's automatic plan start then, whatever was scheduled."""
    end_with_cycle(catalog, attached, now)
    if attached.is_main:
        unschedule(customer, attached.group, attached.entity_id)
    follower = automatic_plan(catalog, attached)
    if follower is not None:
        schedule(catalog, customer, attached, follower)


def uncancel(customer: Customer, attached: AttachedPlan) -> None:
    """Let a plan that was to end go on, and forget what was to follow."""
    attached.canceled_at = attached.expires_at = None
    if attached.is_main:
        unschedule(customer, attached.group, attached.entity_id)


def _follower(customer: Customer, attached: AttachedPlan) -> AttachedPlan | None:
    place = (attached.group, attached.entity_id)
    scheduled = (plan for plan in customer.plans if plan.status == "scheduled")
    return next((plan for plan in scheduled if (plan.group, plan.entity_id) == place), None)


def _fall_back(catalog: Catalog, customer: Customer, attached: AttachedPlan, now: int) -> None:
    plan = automatic_plan(catalog, attached)
    if plan is not None:
        attach(catalog, customer, plan, now=now)


def automatic_plan(catalog: Catalog, attached: AttachedPlan) -> Document | None:
    """Return the plan that a customer gets when this one ends: the group's automatic one, unless it is that itself.

    Entities get none.
    """
    if not attached.is_main or attached.entity_id is not None:
        return None
    for plan in catalog.plans.values():
        if plan["auto_enable"] and not plan["archived"] and plan["group"] == attached.group:
            return None if plan["id"] == attached.plan_id else plan
    return None


def end_with_cycle(catalog: Catalog, attached: AttachedPlan, now: int) -> None:
    """Let a plan end with its cycle; one that is not billed here ends a whole cycle from now."""
    price = catalog.plan(attached.plan_id, attached.version)["price"]
    interval = "month" if price is None or price["interval"] == "one_off" else price["interval"]
    attached.canceled_at = now
    attached.expires_at = attached.period_end or add_interval(now, interval)


def schedule(
    catalog: Catalog,
    customer: Customer,
    current: AttachedPlan,
    plan: Document,
    quantities: dict[str, float] | None = None,
) -> None:
    """Let a plan start when the current one ends, in the place of whatever was to start then."""
    follower = new_plan(catalog, plan, now=current.expires_at or 0, quantities=quantities, entity_id=current.entity_id)
    follower.status = "scheduled"
    unschedule(customer, follower.group, follower.entity_id)
    customer.plans.append(follower)


def unschedule(customer: Customer, group: str | None, entity_id: str | None) -> None:
    """Forget what was to start later in a group."""
    customer.plans = [
        plan
        for plan in customer.plans
        if plan.status != "scheduled" or plan.group != group or plan.entity_id != entity_id
    ]


def catch_up(catalog: Catalog, customer: Customer, now: int) -> bool:
    """Do what fell due since the customer was last seen; True if anything changed.

    Like Autumn this happens when somebody looks, so a balance that nobody read for three periods resets once.
    """
    changed = False
    for attached in list(customer.plans):
        if attached.status == "active" and attached.expires_at is not None and attached.expires_at <= now:
            expire(catalog, customer, attached, attached.expires_at)
            changed = True
        elif attached.trial_ends_at is not None and attached.trial_ends_at <= now:
            changed |= _end_trial(catalog, customer, attached)
        if attached.period_end is not None and attached.period_end <= now and attached in customer.plans:
            _next_period(catalog, attached, now)
            changed = True
    kept = [
        held
        for held in customer.entitlements
        if (held.expires_at is None or held.expires_at > now) and not held.is_spent
    ]
    if len(kept) != len(customer.entitlements):
        customer.entitlements, changed = kept, True
    for held in customer.entitlements:
        if held.next_reset_at is not None or held.rollovers:
            changed |= _balances.reset_if_due(held, now, catalog.new_id("roll"))
    return changed


def _start(catalog: Catalog, customer: Customer, attached: AttachedPlan, plan: Document) -> None:
    attached.status = "active"
    replaced = current_plan(customer, plan, attached.entity_id)
    before = customer.entitlements
    if replaced is not None:
        end(customer, replaced)
    if attached.is_main:
        unschedule(customer, attached.group, attached.entity_id)
    made = entitlements_of(plan, attached, catalog.features, customer.entities, catalog.new_id)
    _carry_over(before, customer.entitlements, made, catalog)
    customer.plans.append(attached)
    customer.entitlements = customer.entitlements + made
    customer.joined.append((plan["id"], plan["version"]))


def _carry_over(before: list[Entitlement], kept: list[Entitlement], made: list[Entitlement], catalog: Catalog) -> None:
    """Keep what was rolled over, and the use of what is not consumed, such as seats: they are still taken."""
    gone = [held for held in before if held not in kept]
    take_along(gone, made)
    for held in made:
        if held.boolean or catalog.features[held.feature_id]["consumable"]:
            continue
        used = sum((old.granted - old.balance for old in gone if old.feature_id == held.feature_id), ZERO)
        held.balance -= used


def _end_trial(catalog: Catalog, customer: Customer, attached: AttachedPlan) -> bool:
    """Go on as a paid plan if a card was asked for (the stand-in always pays), else end with the trial."""
    plan = catalog.plan(attached.plan_id, attached.version)
    trial = plan.get("free_trial") or {}
    ended_at, attached.trial_ends_at = attached.trial_ends_at, None
    if trial.get("card_required") or trial.get("on_end") == "bill" or is_free(plan):
        return True
    expire(catalog, customer, attached, ended_at or 0)
    return True


def _next_period(catalog: Catalog, attached: AttachedPlan, now: int) -> None:
    price = catalog.plan(attached.plan_id, attached.version)["price"]
    if price is None or price["interval"] == "one_off":
        attached.period_start = attached.period_end = None
        return
    while attached.period_end is not None and attached.period_end <= now:
        attached.period_start = attached.period_end
        attached.period_end = add_interval(attached.period_end, price["interval"], price.get("interval_count", 1))
