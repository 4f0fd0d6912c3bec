"""Run seeds: `python -m simulation` (see `--help`)."""

import argparse
import json
import secrets
import sys
from pathlib import Path

from simulation.campaign import campaign
from simulation.hunt import hunt
from simulation.plan import generate
from simulation.scenario import play
from simulation.shrink import same_violation, shrink
from simulation.story import story


def main() -> int:
    """Do what the command line says; 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description="A simulated world for the money.")
    parser.add_argument("--seed", type=int, help="tell the story of one seed")
    parser.add_argument("--plan", type=Path, help="tell the story of a plan that was kept")
    parser.add_argument("--shrink", action="store_true", help="cut the plan down to what still fails, and tell that")
    parser.add_argument("--seeds", type=int, default=100, help="play so many seeds (default: 100)")
    parser.add_argument("--first", type=int, help="the first of them (default: a new one each time)")
    parser.add_argument(
        "--layer", choices=("full", "lean"), default="full", help="with FastAPI and the emulator, or not"
    )
    parser.add_argument("--store", choices=("memory", "sql"), default="memory", help="where the outbox is (full layer)")
    parser.add_argument("--hunt", type=Path, help="shrink what is found, and keep a plan for each cause in this folder")
    options = parser.parse_args()
    if options.seed is not None or options.plan is not None:
        kept = options.plan is not None
        plan = json.loads(options.plan.read_text())["plan"] if kept else generate(options.seed, layer=options.layer)
        plan["store"] = options.store
        return _tell(plan, cut=options.shrink)
    first = secrets.randbelow(10**9) if options.first is None else options.first
    if options.hunt is not None:
        return int(bool(hunt(range(first, first + options.seeds), options.hunt, layer=options.layer)))
    return campaign(first, options.seeds, layer=options.layer, store=options.store)


def _tell(plan: dict, *, cut: bool) -> int:
    verdict = play(plan)
    if cut and verdict.found:
        has = same_violation(verdict.found[0])
        plan = shrink(plan, lambda candidate: has(play(candidate).found))
        verdict = play(plan)
        print(json.dumps(plan, indent=1))
    print(story(verdict))
    return int(bool(verdict.found))


if __name__ == "__main__":
    sys.exit(main())
