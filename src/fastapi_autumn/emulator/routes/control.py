"""`/emulator/...`: what Autumn has no route for. Another process drives the emulator with these, without a key."""

from __future__ import annotations

from dataclasses import fields as dataclass_fields
from typing import Any

from fastapi_autumn.emulator._errors import invalid_inputs
from fastapi_autumn.emulator.catalog._seeding import seed
from fastapi_autumn.emulator.http import _keys
from fastapi_autumn.emulator.http._call import Call, Operation, parse_object
from fastapi_autumn.emulator.http._faults import Fault, Faults

_MINUTE = 60_000
_UNITS = {"days": 1_440 * _MINUTE, "hours": 60 * _MINUTE, "minutes": _MINUTE, "seconds": 1_000, "milliseconds": 1}


def health(call: Call) -> Any:
    """Say that the emulator runs, what time it has, and how much it holds."""
    counts = call.store.row("SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM events)") or (0, 0)
    return {"status": "ok", "now": call.now, "customers": counts[0], "events": counts[1]}


def add_fault(call: Call) -> Any:
    """Switch a fault on: `{"operation": "balances.check", "kind": "fail", "times": 3, ...}`."""
    body = parse_object(call.body)
    known = {field.name for field in dataclass_fields(Fault)}
    try:
        fault = Fault(**{key: value for key, value in body.items() if key in known})
    except (TypeError, ValueError) as error:
        raise invalid_inputs(f"input: {error}") from error
    Faults(call.store).add(str(body.get("operation", "*")), fault)
    return show_faults(call)


def show_faults(call: Call) -> Any:
    """Show the faults that are switched on, and how often each kind has hit."""
    faults = Faults(call.store)
    return {"active": faults.active, "counts": dict(faults.counts)}


def clear_faults(call: Call) -> Any:
    """Switch all faults off."""
    Faults(call.store).clear()
    return show_faults(call)


def advance_clock(call: Call) -> Any:
    """Move time forward: `{"days": 31}`, also hours, minutes, seconds, milliseconds."""
    body = call.fields()
    step = sum((body.number(unit) or 0) * length for unit, length in _UNITS.items())
    body.check()
    if step < 0:
        raise invalid_inputs("input: the clock moves forward only")
    call.store.move_clock(int(step))
    return {"now": call.now + int(step)}


def reset(call: Call) -> Any:
    """Forget everything, and seed again with what the emulator was seeded with."""
    again = call.store.ticket("seed", "catalog")
    keys = call.store.rows("SELECT key FROM keys")
    call.store.clear()
    for (key,) in keys:
        _keys.add(call.store, key)
    if again:
        seed(call.store, again, now=call.now)
    return {"success": True}


def seed_catalog(call: Call) -> Any:
    """Add features and plans, in the shape of catalog.update."""
    seed(call.store, parse_object(call.body), now=call.now)
    return {"success": True}


ROUTES = {
    ("GET", "/emulator/health"): Operation("emulator.health", health, writes=False, public=True),
    ("GET", "/emulator/faults"): Operation("emulator.faults", show_faults, writes=False, public=True),
    ("POST", "/emulator/faults"): Operation("emulator.faults", add_fault, public=True),
    ("DELETE", "/emulator/faults"): Operation("emulator.faults", clear_faults, public=True),
    ("POST", "/emulator/clock"): Operation("emulator.clock", advance_clock, public=True),
    ("POST", "/emulator/reset"): Operation("emulator.reset", reset, public=True),
    ("POST", "/emulator/seed"): Operation("emulator.seed", seed_catalog, public=True),
}
