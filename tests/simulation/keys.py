"""What attempts under one key of the caller's may cost together: one price for one answer (docs/gate.md)."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from simulation.application import Record

__all__ = ["under_one_key", "violations_under_keys"]

_NOTHING = Decimal(0)
_OPEN, _PAID, _ANSWERED = "open", "paid", "answered"
"""Nothing is paid; a price is paid and an answer is owed for it; the answer was given."""


def under_one_key(records: Iterable[Record]) -> list[list[Record]]:
    """Group the attempts that were made under one key, in the order in which they came."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        plan = record.plan
        if "key" in plan and record.began_at is not None:
            route = (plan["customer"], plan["feature"], plan["charging"], plan["route"], plan["model"])
            groups.setdefault((record.loop.organisation, plan["key"], *route), []).append(record)
    return [sorted(group, key=lambda one: (one.began_at, one.number)) for group in groups.values()]


def violations_under_keys(group: Sequence[Record], used: Decimal, scenario: Any, expected: Any) -> list[str]:
    """Return what is wrong with the attempts under one key, which came to `used` together.

    While the database or a process is in trouble, nobody knows what became of an attempt. Its caller may be charged
    anew then, but never for more than what was served.
    """
    name = " and ".join(f"#{record.number}" for record in group)
    plan = scenario.plan
    served = [record for record in group if record.reached_at is not None]
    allowed = {record.number: expected(record, scenario) for record in group}
    most = sum((max(one.most, *one.amounts) for one in allowed.values()), _NOTHING)
    if not _NOTHING <= used <= most:
        return [f"attempts: call #{group[0].number} and others under its key ({name}) cost {used}, at most {most}"]
    in_trouble = plan["world"] or plan["db"] or plan["db_weather"] or "restore" in plan or "jobs" in plan
    if in_trouble or group[0].plan["feature"] != "plenty" or any(one.most >= 0 for one in allowed.values()):
        return []
    return [*_wrong_price(name, served, used, allowed), *_wrongly_refused(group)]


def _wrong_price(name: str, served: Sequence[Record], used: Decimal, allowed: Any) -> list[str]:
    ways = {(_OPEN, _NOTHING)}
    for record in sorted(served, key=lambda one: (one.reached_at, one.number)):
        ways = {after for way in ways for after in _after(record, *way, allowed[record.number].amounts)}
        if not ways:
            return [f"attempts: call #{record.number} was served again under the key of {name}"]
    totals = {total for _, total in ways}
    if used not in totals:
        shown = " or ".join(map(str, sorted(totals)))
        return [f"attempts: call #{served[0].number} and others under its key ({name}) cost {used} instead of {shown}"]
    return []


def _after(record: Record, state: str, total: Decimal, costs: Iterable[Decimal]) -> list[tuple[str, Decimal]]:
    """Return what may be the case after one more attempt was served."""
    is_whole = record.complete_at is not None and record.failed_at is None
    has_left = record.left_at is not None or record.cancelled
    if state == _ANSWERED:
        return []
    if state == _PAID:
        # Served on the charge that is there; a second hang-up uses it up.
        if is_whole:
            return [(_ANSWERED, total)]
        return [(_PAID, total), (_OPEN, total)] if has_left else [(_PAID, total)]
    price = max(costs)
    found = []
    for cost in costs:
        if not cost:
            found.append((_OPEN, total))
        elif is_whole or not has_left:
            found.append((_ANSWERED, total + cost))
        else:
            found.append((_PAID if cost >= price and not record.said else _OPEN, total + cost))
            found.append((_ANSWERED, total + cost)) if record.said or "slow" in record.plan["client"] else None
            found.append((_PAID, total + cost)) if record.said else None
    return found


def _wrongly_refused(group: Sequence[Record]) -> list[str]:
    found = []
    for record in group:
        before = [other for other in group if other is not record and other.began_at <= record.ended_at]
        if record.code == "already_answered" and not any(map(_may_be_answered, before)):
            found.append(f"refused: call #{record.number} was told that its key was answered, and nobody has an answer")
        ended = [other.ended_at for other in before]
        if record.code == "in_progress" and all(at is not None and at < record.began_at for at in ended):
            found.append(f"refused: call #{record.number} was told that an attempt is under way, and none was")
    return found


def _may_be_answered(record: Record) -> bool:
    """Whether the caller has the answer, or the handler said what it costs, or they left while the last part went."""
    if record.reached_at is None:
        return False
    return record.complete_at is not None or bool(record.said) or "slow" in record.plan["client"]
