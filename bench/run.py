"""Run the benchmarks: `python -m bench.run`, or `--only throughput --rounds 2` for a part of them.

A whole run writes RESULTS.md and throughput.svg beside this file; a part is printed, or written with `--write`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.measures import MEASURES, Plan, run

_HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(MEASURES), action="append", help="may be given more than once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in each cell of each round")
    parser.add_argument("--write", action="store_true", help="RESULTS.md, although it is a part only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        plan = Plan(options.rounds, options.seconds, Path(directory), lambda line: print(line, file=sys.stderr))
        samples = run(options.only or MEASURES, plan)
    if options.only and not options.write:
        print(report.targets(samples), report.tables(samples), sep="\n\n")
        return
    command = " ".join(["python -m bench.run", *sys.argv[1:]])
    (_HERE / "RESULTS.md").write_text(
        report.page(samples, rounds=options.rounds, seconds=options.seconds, command=command)
    )
    (_HERE / "throughput.svg").write_text(report.picture(samples))
    print(report.targets(samples))


if __name__ == "__main__":
    main()
