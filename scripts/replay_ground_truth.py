"""Replay the recordings of the real Autumn against the emulator, and print what was compared.

Exits with 1 if anything differs that is not on the list of accepted deviations. An argument sets how many differences
of each file are shown (5).
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from emulator.replay import replay_all


def main() -> int:
    """Print what was compared; 1 if anything differs that is not on the list."""
    tallies = asyncio.run(replay_all())
    for name, tally in tallies.items():
        print(f"{name:36} {tally.steps:5} steps {tally.fields:7} fields {len(tally.differences):5} differ"
              f" {tally.differing - len(tally.differences):5} accepted")  # fmt: skip
        for difference in tally.differences[: int(sys.argv[1]) if len(sys.argv) > 1 else 5]:
            print("   ", difference[:400])
    steps, fields = sum(t.steps for t in tallies.values()), sum(t.fields for t in tallies.values())
    agreeing = fields - sum(t.differing for t in tallies.values())
    print(f"\n{steps} steps and {fields} fields compared, {agreeing} ({agreeing / fields:.3%}) agree")
    for reason, count in sum((t.accepted for t in tallies.values()), Counter()).most_common():
        print(f"  {count:5} differ because {reason}")
    return 1 if any(tally.differences for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
