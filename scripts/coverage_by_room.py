"""Combines what the processes of a test run measured, prints the coverage of each room, and holds it to its floor."""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/fastapi_autumn/"

# Percent of lines and branches, as was reached and rounded down. Raise them with what is covered, and never lower them.
FLOORS = {
    "settlement": 98.0,
    "charge": 95.0,
    "gate": 99.0,
    "middleware": 99.0,
    "_ending": 100.0,
    "_attempts": 100.0,
    "_identity": 100.0,
    "_refusals": 100.0,
    "client": 99.0,
    "transports": 97.0,
    "pricing": 99.0,
}
FLOOR_OVERALL = 97.0


def measured() -> dict[str, dict[str, Any]]:
    """What coverage.py says of each file of the package."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        subprocess.run([*coverage, "json", "--quiet", "-o", report], cwd=ROOT, check=True)
        files = json.loads(report.read_text())["files"]
    return {name.removeprefix(PACKAGE): file for name, file in files.items() if name.startswith(PACKAGE)}


def percent(summaries: list[dict[str, int]]) -> float:
    """The share of lines and branches that ran."""
    possible = sum(summary["num_statements"] + summary["num_branches"] for summary in summaries)
    ran = sum(summary["covered_lines"] + summary["covered_branches"] for summary in summaries)
    return 100 * ran / possible if possible else 100.0


def missing(file: dict[str, Any]) -> list[str]:
    """The lines and branches of a file that did not run: `12`, `14-20`, `31->35`."""
    lines = file["missing_lines"]
    gaps, first = [], None
    for number, line in enumerate(lines):
        first = line if first is None else first
        if lines[number + 1 : number + 2] != [line + 1]:
            gaps.append(f"{first}-{line}" if line > first else str(line))
            first = None
    return gaps + [f"{start}->{end}" for start, end in file["missing_branches"] if not {start, end} & set(lines)]


def main() -> None:
    rooms = defaultdict(dict)
    files = measured()
    for name, file in files.items():
        rooms[name.partition("/")[0].removesuffix(".py")][name] = file
    low = []
    print("\ncoverage of lines and branches, by room")
    for room, inside in sorted(rooms.items()):
        reached = percent([file["summary"] for file in inside.values()])
        floor = FLOORS.get(room)
        below = floor is not None and reached < floor
        low += [room] * below
        print(f"{reached:6.1f} %  {room}" + (f"  (floor {floor:g} %)" if floor is not None else ""))
        for name, file in sorted(inside.items()):
            if gaps := missing(file):
                print(f"          {name}: {', '.join(gaps)}")
    overall = percent([file["summary"] for file in files.values()])
    print(f"{overall:6.1f} %  overall  (floor {FLOOR_OVERALL:g} %)")
    if unknown := sorted(set(FLOORS) - set(rooms)):
        sys.exit(f"no such room: {', '.join(unknown)}")
    if low or overall < FLOOR_OVERALL:
        sys.exit(f"below the floor: {', '.join(low) or 'overall'}")


if __name__ == "__main__":
    main()
