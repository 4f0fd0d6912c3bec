"""What each call should have cost, from what its caller received and what its handler said, and nothing else.

The rules are those of docs/outcomes.md. There is one grey zone: a decision that fell in the last moments before its
process was killed may be lost with it, and the call then costs nothing instead of exactly its price.
"""

from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from simulation.application import FEATURES, PRICES, Record
from simulation.keys import under_one_key, violations_under_keys
from simulation.metering import cost_so_far, is_journalled, progress, wrong_refusals

__all__ = ["LAST_MOMENTS", "Allowed", "expected", "violations"]

LAST_MOMENTS = 1.0
"""Seconds before a kill in which a decision may not be written down yet, while the database is well."""
_AFTER_TROUBLE = 8.0
"""Seconds for which a database that was away may still hold up what is to be written: the writer's longest pause."""
_BUSY = 2.0
"""Seconds for which a driver waits for a lock before it says so."""
_STATEMENTS = 8
"""How many times a commit waits for a database that is slow."""
_PATIENCE = 16.0
"""Seconds after the last trouble in which a call may still be refused: the longest pause of a circuit breaker between
two looks, and a moment."""


class Allowed(NamedTuple):
    """What a call may have cost: one of these amounts, or anything of a range where the balance sets the end."""

    amounts: frozenset[Decimal]
    why: str
    least: Decimal = Decimal(0)
    most: Decimal = Decimal(-1)

    def __contains__(self, used: object) -> bool:
        return used in self.amounts or (isinstance(used, Decimal) and self.least <= used <= self.most)

    def __str__(self) -> str:
        shown = " or ".join(map(str, sorted(self.amounts)))
        return shown if self.most < 0 else f"{self.least} to {self.most}"


def price_of(record: Record) -> Decimal:
    """Return what is taken or held for the call."""
    if "use" in record.plan:
        return record.plan["use"]["tokens"] * Decimal("0.1")
    return Decimal(str(PRICES[record.plan["model"]]))


def amount(said: str) -> Decimal:
    """Read an amount as a handler says it; what is longer than ten places is rounded up."""
    exact = Decimal(1) / Decimal(said[2:]) if said.startswith("1/") else Decimal(said)
    return exact.quantize(Decimal("1e-10"), rounding=ROUND_CEILING) if -exact.as_tuple().exponent > 10 else exact


def expected(record: Record, scenario: Any) -> Allowed:
    """Return what the call may have cost, and why."""
    nothing, price = Decimal(0), price_of(record)

    def only(*amounts: Decimal, why: str) -> Allowed:
        return Allowed(frozenset(amounts), why)

    if record.began_at is None:
        return only(nothing, why="nobody served it")
    if record.reached_at is None:
        if record.cancelled:
            return only(nothing, price, why="cancelled before the handler")
        why = f"the handler was never reached ({record.status})"
        if scenario.was_restored(record):
            return only(nothing, price, why=f"{why}, forgotten when the database was restored")
        return only(nothing, why=why)
    decided_at, cost, why = _decided(record, price)
    killed_at = record.loop.killed_at
    if killed_at is None and scenario.stopped_unwritten(record.loop):
        killed_at = record.loop.stopped_at
    if killed_at is not None and (decided_at is None or killed_at < decided_at):
        amounts = _written_by(record, killed_at, killed_at, scenario)
        if scenario.was_restored(record):
            amounts |= {price, *_written_by(record, 0.0, killed_at, scenario)}
            return only(*amounts, why="killed while it ran, forgotten when the database was restored")
        return only(*amounts, why="killed while it ran")
    if decided_at is None:
        left_at = record.loop.stopped_at if killed_at is None else killed_at
        last = scenario.world.now if left_at is None else left_at
        return only(*_written_by(record, last, last, scenario), why="it never ended")
    amounts = {cost}
    if not record.said and (
        record.error == "CancelledError" or (record.plan["client"].get("cancels") and not record.chunks)
    ):
        # A server that cancels while nobody listens for a hang-up is not to be told from a time-out.
        amounts.add(nothing)
    if killed_at is not None and _is_last_moment(record, decided_at, killed_at, scenario):
        amounts |= _written_by(record, decided_at, killed_at, scenario)
        why += ", in the last moments before a kill"
    if scenario.was_restored(record):
        amounts |= {nothing, price, *_written_by(record, 0.0, decided_at, scenario)}
        why += ", forgotten when the database was restored"
    if record.plan["feature"] != "plenty":
        # Nothing is taken that is not there: a settlement above the price, or a call that was served unverified.
        if not record.verified or scenario.lost_its_hold(record):
            return Allowed(frozenset(amounts), why, Decimal(0), cost)
        if cost > price:
            return Allowed(frozenset(amounts), why, price, cost)
    return Allowed(frozenset(amounts), why)


def _decided(record: Record, price: Decimal) -> tuple[float | None, Decimal, str]:
    """Return when it was decided what the call costs, the cost, and why."""
    if record.said:
        at, what, value = record.said[0]
        if what == "settle":
            return at, amount(value), f"settled at {value}"
        kept = price if value is None else Decimal(value)
        return at, kept if what == "keep" else Decimal(0), f"the handler said {what}"
    ended = record.ended_at
    if ended is None:
        # The answer is whole, and something after it still runs when the process dies.
        return None, price, "not over"
    if "use" in record.plan:
        return _metered(record, price, ended)
    if record.failed_at is not None and record.error == "WebSocketDisconnect":
        return ended, price, "the caller left before the handler could say that it failed"
    if record.failed_at is not None:
        return ended, Decimal(0), "the handler failed"
    if record.status is not None and record.status >= 400 and record.complete_at is not None:
        return ended, Decimal(0), f"answered {record.status}"
    if record.complete_at is not None:
        return ended, price, "a complete answer"
    if record.left_at is not None:
        return ended, price, "the caller left"
    return ended, Decimal(0), f"the answer was never finished ({record.status} {record.error})"


def _metered(record: Record, price: Decimal, ended: float) -> tuple[float, Decimal, str]:
    """As above, where the use decides: a failure costs nothing, or what was used; all else what was used, or held."""
    if record.complete_at is not None and record.failed_at is None:
        used = cost_so_far(record, ended, done=True)
        return ended, price if used is None else used, "a complete answer, by its use"
    if record.left_at is not None and record.failed_at is None:
        used = cost_so_far(record, ended, gone=True)
        return ended, price if used is None else used, "the caller left, by its use"
    used = cost_so_far(record, ended) if is_journalled(record) else None
    return ended, used or Decimal(0), "it failed, by its use"


def _written_by(record: Record, since: float, killed_at: float, scenario: Any) -> set[Decimal]:
    """Return what the outbox may say that a call costs whose process died: nothing, or what it had used by then."""
    if not is_journalled(record):
        return {Decimal(0)}
    last = killed_at - LAST_MOMENTS
    while _is_last_moment(record, last, killed_at, scenario) and last > 0.0:
        last -= LAST_MOMENTS
    amounts = progress(record, min(since, last), killed_at)
    # Nothing is written down before it is known that there is a hold.
    return amounts if record.verified else amounts | {Decimal(0)}


def _is_last_moment(record: Record, decided_at: float, killed_at: float, scenario: Any) -> bool:
    moments = LAST_MOMENTS
    for window in scenario.plan["db_weather"]:
        begins, ends = window["at"], window["at"] + window["for"]
        if window["fault"] == "slow" and begins <= killed_at and ends >= decided_at:
            moments += _STATEMENTS * window["d"]
    if killed_at - decided_at - record.loop.stood_still(decided_at, killed_at) < moments:
        return True
    # As long as its database was away, nothing that the process knew could be written down.
    for window in scenario.plan["db_weather"]:
        begins, ends = window["at"], window["at"] + window["for"]
        concerned = window["fault"] in ("cut", "locked") and window.get("worker") in (None, record.loop.worker)
        was_short = begins - decided_at - record.loop.stood_still(decided_at, begins) < moments
        if concerned and was_short and begins <= killed_at < ends + _AFTER_TROUBLE:
            return True
    name = record.loop.name
    troubles = [at for at, who in scenario.database.troubles if who == name and at <= killed_at]
    if troubles and killed_at - troubles[-1] < _AFTER_TROUBLE + moments:
        begins = _begin_of_last_trouble(troubles)
        return begins - decided_at - record.loop.stood_still(decided_at, begins) < _BUSY + moments
    return False


def _begin_of_last_trouble(troubles: list[float]) -> float:
    first = troubles[-1]
    for at in reversed(troubles):
        if first - at > _AFTER_TROUBLE:
            break
        first = at
    return first


def violations(scenario: Any) -> list[str]:
    """Return what is wrong at the end of a scenario, one line each, as `kind: details`."""
    found = []
    net: dict[int, Decimal] = {}
    asked: dict[int, Decimal] = {}
    total: dict[Any, Decimal] = {}
    call_of = dict(scenario.network.call_of_charge)
    call_of |= {charge: record.number for record in scenario.records.values() for charge in record.charge_ids}
    for organisation, event in scenario.events():
        charge = event["properties"].get("charge_id")
        call = call_of.get(charge)
        moved = sum((Decimal(str(row["value"])) for row in event["deductions"] or ()), Decimal(0))
        whose = (organisation, event["customer_id"], event["feature_id"])
        total[whose] = total.get(whose, Decimal(0)) + moved
        if call is None:
            found.append(f"stray: an event of no call, {charge}")
        elif scenario.records[call].loop.organisation != organisation:
            found.append(f"stray: an event of call #{call} in another organisation")
        else:
            net[call] = net.get(call, Decimal(0)) + moved
            asked[call] = asked.get(call, Decimal(0)) + Decimal(str(event["value"]))
    for record in scenario.records.values():
        found += _refusals(record, scenario)
        if "use" in record.plan:
            found += wrong_refusals(record)
        if "key" in record.plan:
            continue
        allowed = expected(record, scenario)
        used = net.get(record.number, Decimal(0)) - scenario.granted(record)
        if used not in allowed and not _is_a_shortfall(record, asked.get(record.number), allowed, scenario):
            kind = _kind(used, allowed.amounts, price_of(record))
            found.append(f"{kind}: call #{record.number} cost {used} instead of {allowed}: {allowed.why}")
    for group in under_one_key(scenario.records.values()):
        used = sum((net.get(one.number, Decimal(0)) - scenario.granted(one) for one in group), Decimal(0))
        if any(_lapses(one, scenario) and (scenario.falls_short(one) or scenario.lost_its_hold(one)) for one in group):
            continue
        found += violations_under_keys(group, used, scenario, expected)
    for (organisation, customer, feature), moved in total.items():
        if feature == "brief" or scenario.has_bought_a_plan(customer):
            # A minute that ended takes its use with it, and a plan that was changed may.
            continue
        usage = scenario.usage(organisation, customer, feature)
        if usage != moved:
            found.append(f"books: {customer} used {usage} of {feature}, by the events {moved}")
    found += scenario.leftovers()
    return found


def _is_a_shortfall(record: Record, asked: Decimal | None, allowed: Allowed, scenario: Any) -> bool:
    """Whether Autumn was asked for the right thing and could not move it: what had paid is no longer there.

    A month that ended takes what was used in it along, a plan that was changed may, and what is used up cannot be taken
    again. Then a row has to say so.
    """
    if asked is None:
        return False
    if record.plan["feature"] == "scarce" and scenario.may_be_taken_for_dead(record.loop):
        # Others gave it back, and somebody else has used it when the worker comes back and takes it again.
        return asked in allowed and scenario.falls_short(record)
    if not _lapses(record, scenario):
        return False
    if record.loop.killed_at is not None and scenario.lost_its_hold(record):
        # Never written down, perhaps, and nobody looks for holds: they end by themselves. See docs/simulation.md.
        return True
    if not scenario.falls_short(record):
        return False
    # An answer was lost: nobody knew of the grant that paid, or an attempt that moved nothing was made once more.
    if record.number in scenario.network.troubled or record.loop.killed_at is not None:
        return True
    # What a grant cannot take back comes as a new grant, and is no shortfall.
    may_fall_short = record.plan["feature"] != "topped_up" or scenario.has_bought_a_plan(record.plan["customer"])
    return may_fall_short and asked in allowed


def _lapses(record: Record, scenario: Any) -> bool:
    return record.plan["feature"] in ("brief", "topped_up") or scenario.has_bought_a_plan(record.plan["customer"])


def _kind(used: Decimal, allowed: frozenset[Decimal], price: Decimal) -> str:
    if used < min(allowed):
        return "credits below nothing" if used < 0 else "unpaid"
    return "refund lost" if min(allowed) < price and used == price else "overpaid"


def _refusals(record: Record, scenario: Any) -> list[str]:
    if record.status == 402 and record.reached_at is None:
        granted = Decimal(FEATURES[record.plan["feature"]])
        bought = scenario.topped_up(record.plan["customer"], record.began_at)
        if record.plan["feature"] == "topped_up":
            granted += sum((Decimal(str(one["credits"])) for one in bought), Decimal(0))
        if _most_in_use(record, scenario) + price_of(record) <= granted:
            return [f"refused: call #{record.number} got 402 and could pay"]
    if record.status in (503, 500) and record.reached_at is None and record.ended_at is not None:
        trouble = scenario.last_trouble(record)
        if trouble is None or record.ended_at - trouble > _PATIENCE:
            return [f"refused: call #{record.number} got {record.status} without trouble"]
    return []


def _most_in_use(record: Record, scenario: Any) -> Decimal:
    """Return the most that the customer's other calls can have taken when this one was refused."""
    whose = (record.plan["customer"], record.plan["feature"], record.loop.organisation)
    most = Decimal(0)
    for other in scenario.records.values():
        if other is record or other.began_at is None or other.began_at > (record.ended_at or scenario.world.now):
            continue
        if (other.plan["customer"], other.plan["feature"], other.loop.organisation) == whose:
            said = [amount(value) for _, what, value in other.said if what == "settle"]
            used = [cost_so_far(other, scenario.world.now) or Decimal(0)] if "use" in other.plan else []
            most += max([price_of(other), *said, *used])
    return most
