"""Calls that are charged for what they use, and runs with a budget: drawn, played, and what they should have cost.

One token costs a tenth of a credit. Reports come twice, late and in any order; of one response that counts which says
most. A budget's steps end at what they reported, or at what was reserved.
"""

import asyncio
import random
from decimal import Decimal
from typing import Any

from fastapi_autumn import Customer
from fastapi_autumn.errors import BudgetExceeded
from fastapi_autumn.pricing import CallRequest, tokens

__all__ = [
    "RATES",
    "cost_so_far",
    "draw_metered",
    "is_journalled",
    "kept_at",
    "open_metered",
    "play_use",
    "progress",
    "wrong_refusals",
]

RATES = {"metered": tokens(input=0, output=100_000)}
_TOKEN = Decimal("0.1")
_NOTHING = Decimal(0)


def draw_metered(seed: int, plan: dict[str, Any]) -> None:
    """Make some calls of a plan metered. Drawn apart, so that the rest of the plan is what it was."""
    draw = random.Random(f"metered {seed}")  # noqa: S311 - the same seed has to give the same plan
    if draw.random() < 0.7:
        return
    share = draw.choice([0.3, 1.0])
    for call in plan["calls"]:
        if "key" in call or draw.random() >= share:
            continue
        kind = draw.choice(["call", "budget"])
        holds = draw.choice([5, 10, 40])
        failed = "used" if kind == "budget" and draw.random() < 0.8 else draw.choice(["nothing", "nothing", "used"])
        call["use"] = {"kind": kind, "tokens": holds, "failed": failed}
        call["charging"] = "hold"
        for _ in range(draw.choice([0, 1, 2, 4])):
            if kind == "call":
                step: list[Any] = ["used", draw.choice("ab"), draw.choice([0, 1, 3, 8, holds, 2 * holds])]
            else:
                reported = draw.choice([None, 0, 1, 3, 12])
                step = ["step", draw.choice([1, 2, 5, 20]), reported, round(draw.choice([0.0, 0.1, 1.0, 5.0]), 3)]
            call["script"].insert(draw.randrange(len(call["script"]) + 1), step)


async def open_metered(charges: Any, plan: dict[str, Any]) -> Any:
    """Open the charge or the budget of a call."""
    use, customer = plan["use"], Customer(plan["customer"])
    options = {"feature_id": plan["feature"], "confirm_customer": False, "failed": use["failed"]}
    if use["kind"] == "budget":
        return await charges.open_budget(customer, use["tokens"] * _TOKEN, **options)
    asks = CallRequest({"max_tokens": use["tokens"]}, 0)
    return await charges.open(customer, "metered", request=asks, **options)


async def play_use(record: Any, world: Any, charge: Any, what: str, value: list[Any]) -> None:
    """Play one report, or one step of a budget, and note it for the oracle as it happens."""
    if what == "used":
        response, count = value
        record.uses.append((world.now, response, count))
        charge.used(output=count, response_id=response)
        return
    reserve, reported, seconds = value
    if charge.closed:
        return
    noted: dict[str, Any] = {"at": world.now, "reserve": reserve * _TOKEN}
    try:
        async with charge.step("metered", credits=reserve * _TOKEN) as step:
            record.steps.append(noted)
            await asyncio.sleep(seconds)
            if reported is not None:
                noted["reported"] = (world.now, reported * _TOKEN)
                step.used(output=reported, response_id="r")
    except BudgetExceeded:
        record.refused_steps.append((len(record.steps), reserve * _TOKEN))
    except asyncio.CancelledError:
        noted["broken"] = world.now
        raise
    else:
        noted["ended"] = world.now


def is_journalled(record: Any) -> bool:
    """Whether what the call has used is paid although its process dies."""
    return "use" in record.plan and record.plan["use"]["failed"] == "used"


def kept_at(record: Any, at: float) -> str | None:
    """Return what a handler that says `keep` has used by then; None where nobody has said, or the price is fixed."""
    used = cost_so_far(record, at) if "use" in record.plan else None
    return None if used is None else str(used)


def cost_so_far(record: Any, at: float, *, gone: bool = False, done: bool = False) -> Decimal | None:
    """Return what was used until then; None where nobody has said."""
    if record.plan["use"]["kind"] == "call":
        most: dict[str, int] = {}
        for when, response, count in record.uses:
            if when <= at:
                most[response] = max(most.get(response, 0), count)
        return sum(most.values()) * _TOKEN if most else None
    total = _NOTHING
    for step in record.steps:
        if step["at"] > at:
            continue
        reported = step.get("reported")
        if reported is not None and reported[0] <= at:
            total += reported[1]
        elif step.get("ended", at + 1) <= at or (gone and "broken" in step) or (done and "broken" not in step):
            total += step["reserve"]
    return total


def progress(record: Any, since: float, until: float) -> set[Decimal]:
    """Return everything that the call had come to in that time, as its outbox may have it."""
    moments = {since, until, *(when for when, _, _ in record.uses)}
    for step in record.steps:
        moments |= {step.get("ended", since), step.get("reported", (since, 0))[0]}
    return {cost_so_far(record, at) or _NOTHING for at in moments if since <= at <= until}


def wrong_refusals(record: Any) -> list[str]:
    """Return the steps that were refused and fitted, or were let in and did not fit."""
    budget = record.plan["use"]["tokens"] * _TOKEN
    refused = [
        f"refused: a step of call #{record.number} fitted, after {before} others"
        for before, reserve in record.refused_steps
        if reserve <= _left(record, budget, before)
    ]
    let_in = [
        f"overshot: step {before} of call #{record.number} did not fit"
        for before, step in enumerate(record.steps)
        if step["reserve"] > _left(record, budget, before)
    ]
    return refused + let_in


def _left(record: Any, budget: Decimal, before: int) -> Decimal:
    """What was left after so many steps. The steps of a handler run one after the other."""
    reported = [step.get("reported", (0.0, step["reserve"]))[1] for step in record.steps[:before]]
    return max(_NOTHING, budget - sum(reported, _NOTHING))
