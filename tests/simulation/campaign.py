"""Many seeds, with progress, and a table of what happened in them."""

import sys
import time
from collections import Counter

from simulation.network import FAULTS
from simulation.plan import Plan, generate
from simulation.scenario import play
from simulation.shrink import same_violation, shrink
from simulation.story import story

__all__ = ["campaign", "never"]

_OTHERS = ["world: kill", "world: stop", "world: pause", "world: jump", "world: roll", "database: commit lost",
           "database: commit done, its answer lost", "database: cut off", "database: locked"]  # fmt: skip


def never(happened: Counter[str]) -> list[str]:
    """Return the faults that never happened."""
    kinds = {name.partition(": ")[2] for name, count in happened.items() if count}
    return [fault for fault in FAULTS if fault not in kinds] + [name for name in _OTHERS if not happened[name]]


def campaign(first: int, count: int, *, layer: str, store: str) -> int:
    """Play `count` seeds; returns 1 if one of them showed a violation, or a fault never happened."""
    again = f"python -m simulation --layer {layer} --store {store} --first {first} --seeds {count}"
    print(f"{layer} layer, store in {store}, seeds {first} to {first + count - 1}; the same again: {again}")
    happened: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    bad: list[int] = []
    began = time.perf_counter()
    for seed in range(first, first + count):
        plan = generate(seed, layer=layer)
        plan["store"] = store
        verdict = play(plan)
        happened += verdict.happened
        outcomes += Counter(f"{status} {'whole' if whole else 'broken off'}" for status, whole in verdict.outcomes)
        if verdict.found:
            bad.append(seed)
            print(
                f"\nseed {seed}: {verdict.found[0]}"
                + (f" and {len(verdict.found) - 1} more" if verdict.found[1:] else "")
            )
        done = seed - first + 1
        if done % 50 == 0 or done == count:
            speed = done / (time.perf_counter() - began)
            print(f"{done} of {count}, {len(bad)} with violations, {speed:.1f} scenarios a second", file=sys.stderr)
    print("\n" + "\n".join(f"{count:>8}  {name}" for name, count in sorted(happened.items())))
    print("\n" + "\n".join(f"{count:>8}  {name}" for name, count in sorted(outcomes.items())))
    if bad:
        _show(generate(bad[0], layer=layer) | {"store": store})
    missing = never(happened) if count >= 1000 else []
    if missing:
        print(f"\nnever happened: {', '.join(missing)}")
    return int(bool(bad or missing))


def _show(plan: Plan) -> None:
    has = same_violation(play(plan).found[0])
    plan = shrink(plan, lambda candidate: has(play(candidate).found))
    print(f"\nseed {plan['seed']}, shrunk:\n{story(play(plan))}")
