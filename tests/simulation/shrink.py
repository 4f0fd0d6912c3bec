"""Cutting a plan down to the fewest faults, calls and workers that still show the same violation.

A plan is a list of independent parts, so this is delta debugging: leave out halves, then quarters, then single parts,
and keep what still fails.
"""

import copy
import re
from collections.abc import Callable
from typing import Any

from simulation.plan import Plan

__all__ = ["same_violation", "shrink"]

_LISTS = ("net", "weather", "db", "db_weather", "world", "books")


def same_violation(violation: str) -> Callable[[list[str]], bool]:
    """Return what tells whether a list of violations has this one: its kind, and its call where it is about one."""
    kind, _, rest = violation.partition(":")
    call = re.search(r"call #(\d+)\b", rest)
    wanted = f"{call[0]} " if call else ""

    def has(found: list[str]) -> bool:
        return any(line.startswith(f"{kind}:") and wanted in f"{line} " for line in found)

    return has


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, attempts: int = 150) -> Plan:
    """Return a smaller plan that still fails."""
    left = attempts

    def still_fails(candidate: Plan) -> bool:
        nonlocal left
        if left <= 0:
            return False
        left -= 1
        return fails(candidate)

    for _ in range(2):
        before = copy.deepcopy(plan)
        plan = _fewer_parts(plan, still_fails)
        plan = _fewer_workers(plan, still_fails)
        plan = _simpler(plan, still_fails)
        if plan == before:
            break
    return plan


def _parts(plan: Plan) -> list[tuple[str, Any]]:
    parts = [(name, part) for name in _LISTS for part in plan.get(name, ())]
    return parts + [("calls", call) for call in plan["calls"]]


def _with_parts(plan: Plan, parts: list[tuple[str, Any]]) -> Plan:
    return {**plan, **{name: [part for kind, part in parts if kind == name] for name in (*_LISTS, "calls")}}


def _fewer_parts(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    parts = _parts(plan)
    size = max(1, len(parts) // 2)
    while True:
        place, cut = 0, False
        while place < len(parts):
            rest = parts[:place] + parts[place + size :]
            if fails(_with_parts(plan, rest)):
                parts, cut = rest, True
            else:
                place += size
        if size == 1 and not cut:
            return _with_parts(plan, parts)
        size = max(1, size // 2) if not cut or size > 1 else 1


def _fewer_workers(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    while len(plan["workers"]) > 1:
        candidate = {**plan, "workers": plan["workers"][:-1]}
        if not fails(candidate):
            break
        plan = candidate
    return plan


def _simpler(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    for change in (_calm_log, _right_clocks, _deny, _one_organisation, _no_jobs, _no_restore):
        candidate = change(copy.deepcopy(plan))
        if candidate != plan and fails(candidate):
            plan = candidate
    for place in range(len(plan["calls"])):
        for change in (_plain_client, _plain_route, _plenty, *(_without_step(step) for step in range(9, -1, -1))):
            candidate = copy.deepcopy(plan)
            change(candidate["calls"][place])
            if candidate != plan and fails(candidate):
                plan = candidate
    return plan


def _calm_log(plan: Plan) -> Plan:
    plan["log"] = {"delay": 0.05}
    return plan


def _right_clocks(plan: Plan) -> Plan:
    plan["workers"] = [{"start": worker["start"]} for worker in plan["workers"]]
    return plan


def _deny(plan: Plan) -> Plan:
    plan["policy"] = "deny"
    return plan


def _one_organisation(plan: Plan) -> Plan:
    plan.pop("organisations", None)
    return plan


def _no_jobs(plan: Plan) -> Plan:
    plan.pop("jobs", None)
    return plan


def _no_restore(plan: Plan) -> Plan:
    plan.pop("restore", None)
    return plan


def _plain_client(call: dict[str, Any]) -> None:
    call["client"] = {"spec": call["client"]["spec"]}


def _plenty(call: dict[str, Any]) -> None:
    call["feature"] = "plenty"


def _plain_route(call: dict[str, Any]) -> None:
    if call["route"] in ("stream", "events", "door", "unread", "named", "file", "socket"):
        return
    call["route"] = "chat"


def _without_step(step: int) -> Callable[[dict[str, Any]], None]:
    def change(call: dict[str, Any]) -> None:
        if step < len(call["script"]):
            del call["script"][step]

    return change
