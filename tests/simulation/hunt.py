"""Looking for causes: violations of many seeds, each shrunk, one kept for each cause.

Two violations have the same cause if what is left of their plans after shrinking is of the same kinds.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulation.plan import Plan, generate
from simulation.scenario import play
from simulation.shrink import same_violation, shrink

__all__ = ["cause", "hunt"]


def cause(violation: str, plan: Plan) -> str:
    """Name what is left after shrinking, without numbers."""
    words = re.sub(r"call #\d+ ", "", violation)
    words = re.sub(r"\b(0x)?[0-9a-f]{16}(-\d+)?\b|[\d.]+(/\d)?", "N", words)
    faults = [f"{fault['op']} {fault['fault']}" for fault in plan["net"]]
    faults += [f"{fault['op'] or 'any'} {fault['fault']} for a while" for fault in plan["weather"]]
    faults += [fault["fault"] for fault in plan["db"]]
    faults += [f"database {fault['fault']}" for fault in plan["db_weather"]]
    faults += [fault["fault"] for fault in plan["world"]]
    if any(worker.get("offset") or worker.get("rate", 1.0) != 1.0 for worker in plan["workers"]):
        faults.append("wrong clock")
    if plan["log"].get("busy"):
        faults.append("busy log")
    if plan["policy"] == "allow":
        faults.append("allow")
    faults += [name for name in ("organisations", "jobs", "restore") if name in plan]
    faults += ["short pages"] if "page" in plan["log"] else []
    if any(call["feature"] == "scarce" for call in plan["calls"]):
        faults.append("scarce")
    if any(call["charging"] == "hold" for call in plan["calls"]):
        faults.append("hold")
    about = re.search(r"call #(\d+)\b", violation)
    for call in plan["calls"]:
        if about and call["n"] == int(about[1]):
            extras = [name for name in ("leaves", "cancels", "junk", "slow", "sends_paths") if name in call["client"]]
            faults += [call["route"], *extras] if not plan["net"] or extras else []
            faults += [f"spec {call['client']['spec']}"] if "leaves" in extras else []
    return f"{words} <- {', '.join(sorted(set(faults))) or 'nothing'}"


def hunt(
    seeds: Iterable[int], folder: Path, *, layer: str = "full", attempts: int = 70, skip: str = ""
) -> dict[str, Any]:
    """Play seeds, shrink what they find, and keep one plan for each cause in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {}
    for path in folder.glob("*.json"):
        kept = json.loads(path.read_text())
        known[kept["cause"]] = kept
    for seed in seeds:
        plan = generate(seed, layer=layer)
        found = play(plan).found
        tried = set()
        for line in found:
            kind = re.sub(r"[\d.#/]+", "", line)
            if kind in tried or (skip and re.search(skip, line)):
                continue
            tried.add(kind)
            has = same_violation(line)
            small = shrink(plan, lambda candidate, has=has: has(play(candidate).found), attempts=attempts)
            verdict = play(small)
            shown = next((now for now in verdict.found if has([now])), line)
            name = cause(shown, small)
            if name in known:
                known[name]["seeds"] = [*known[name].get("seeds", []), seed]
                continue
            known[name] = {"cause": name, "violation": shown, "seed": seed, "plan": small}
            (folder / f"{seed}-{len(tried)}.json").write_text(json.dumps(known[name], indent=1))
            print(f"{seed:>8}  {name}", flush=True)
    return known
