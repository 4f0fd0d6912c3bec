"""Runs every test, and says what came out.

`make test-everywhere` is all of this:

1. The whole suite on the Python at hand, with coverage.
2. Transports and client under uvloop.
3. What depends on the interpreter, on each further Python from 3.11 to 3.14 that is found.
4. The same with the oldest direct dependencies that pyproject.toml allows.

`make test` is `--briefly`, a third of it: the first without coverage, and of the third only what moves credits and what
talks to Autumn.

An environment for each is made beside `.venv` and kept; it is made anew when the dependencies change.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = ROOT / "pyproject.toml"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")

# The official clients, a browser, the documentation and static analysis say the same on every Python.
DEPENDS_ON_THE_INTERPRETER = "not interop and not browser and not docs and not static"

# What loses or invents credits if an interpreter runs it in another way, and what holds the connections.
MOVES_CREDITS = [f"tests/{room}" for room in ("charge", "client", "settlement", "transports")]

# Their own requirements decide which of them fit to the oldest dependencies.
BUILD_ON_OURS = {"granian", "hypercorn", "openai", "opentelemetry-sdk", "respx", "schemathesis", "sse-starlette"}

# Old packages use what new ones deprecate. The schemathesis that fits stops every pytest, so it is not installed; the
# oldest FastAPI has no event streams of its own (`fastapi.sse`).
WITHOUT_SCHEMATHESIS = ["tests/emulator/test_emulator_contract.py", "tests/demo_app/test_fuzz.py"]
WITHOUT_EVENT_STREAMS = ["tests/simulation"] + [
    f"tests/test_{name}.py" for name in ("ending", "middleware_messages", "outcomes", "servers")
]
# PydanticAI needs a newer pydantic, and the clients that fit may be of another generation than those of the tests.
WITHOUT_INTEGRATIONS = ["tests/integrations"]
FOR_THE_OLDEST = ["-W", "default::DeprecationWarning"] + [
    f"--ignore={path}" for path in WITHOUT_SCHEMATHESIS + WITHOUT_EVENT_STREAMS + WITHOUT_INTEGRATIONS
]


@dataclass
class Run:
    """One call of pytest, and what it said at its end."""

    name: str
    python: Path
    arguments: Sequence[str]
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    succeeded: bool = False

    def start(self, options: Sequence[str]) -> None:
        """Run it, with its output on ours."""
        print(f"\n=== {self.name} ===", flush=True)
        began = time.monotonic()
        command = [str(self.python), *self.arguments, *options]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = ""
            for line in process.stdout:
                print(line, end="", flush=True)
            # The last line is pytest's: "2 failed, 3127 passed, 1 skipped in 312.03s".
            self.counts = {what.rstrip("s"): int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", line)}
        self.seconds = time.monotonic() - began
        self.succeeded = process.returncode == 0

    @property
    def failures(self) -> int:
        """How many tests failed; a run that ended badly without naming one counts as one."""
        failed = self.counts.get("failed", 0) + self.counts.get("error", 0)
        return failed or int(not self.succeeded)


def interpreters() -> dict[str, Path]:
    """The Pythons of this machine that this project names and that really start, by version."""
    found: dict[str, Path] = {}
    for version in VERSIONS:
        candidates = chain(_on_the_path(f"python{version}"), _of_pyenv(version), [Path(sys.executable)])
        working = next((python for python in candidates if _version_of(python) == version), None)
        if working is not None:
            found[version] = working
    return found


def _on_the_path(name: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield Path(found)


def _of_pyenv(version: str) -> list[Path]:
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    found = glob.glob(f"{root}/versions/{version}.*/bin/python{version}")  # noqa: PTH207 - the pattern is the point
    return sorted(map(Path, found), key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])[::-1]


def _version_of(python: Path) -> str | None:
    """The version of an interpreter, or None if it does not start or cannot make environments."""
    code = "import ensurepip, sqlite3, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(name: str, python: Path, constraints: Path, *, without: Sequence[str] = ()) -> Path:
    """Make the environment `.venv-NAME` if it is missing or outdated, and return its Python."""
    folder = ROOT / f".venv-{name}"
    stamp, made = folder / ".installed", folder / "bin" / "python"
    newest = max(file.stat().st_mtime for file in (PROJECT, constraints))
    if stamp.exists() and stamp.stat().st_mtime >= newest:
        return made
    print(f"\nmaking {folder.name}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [made, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    extras = ",".join(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])
    wanted = ["--constraint", constraints, "--group", "test", "--editable", f".[{extras}]"]
    subprocess.run([*pip, *wanted], cwd=ROOT, check=True)
    if without:
        subprocess.run([made, "-m", "pip", "uninstall", "--quiet", "--yes", *without], check=True)
    stamp.touch()
    return made


def oldest_constraints() -> Path:
    """Write constraints that hold each direct dependency at the oldest version that pyproject.toml allows.

    The tools of the tests stay where `constraints.txt` has them, but for those that build on what is held back. What
    comes with a dependency is left to pip.
    """
    project = tomllib.loads(PROJECT.read_text())
    requirements = [*project["project"]["dependencies"], *chain(*project["project"]["optional-dependencies"].values())]
    oldest = {}
    for requirement in requirements:
        name, version = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement).groups()
        oldest[name] = f"{name}=={version}"
    tools = {re.match(r"[\w-]+", item)[0] for item in project["dependency-groups"]["test"]}
    kept = tools - set(oldest) - BUILD_ON_OURS
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if line.partition("==")[0] in kept]
    written = ROOT / ".venv-oldest.txt"
    content = "\n".join([*sorted(oldest.values()), *pins, ""])
    if not written.exists() or written.read_text() != content:
        written.write_text(content)
    return written


def plan(here: Path, *, only: str | None, briefly: bool) -> Iterator[Run]:
    """All runs, in order; environments are made on the way."""
    pytest = ["-m", "pytest"]
    portable = [*pytest, "-m", DEPENDS_ON_THE_INTERPRETER]
    current = "{}.{}".format(*sys.version_info[:2])
    found = interpreters()
    print("found Python " + ", ".join(f"{version} ({python})" for version, python in found.items()))
    if missing := [version for version in VERSIONS if version not in found]:
        print(f"not found, so not tested: Python {', '.join(missing)}")
    if only == "here" or (briefly and only is None):
        yield Run(f"Python {current}", here, pytest)
    elif only is None:
        yield Run(f"Python {current}, everything", here, ["-m", "coverage", "run", *pytest])
    if only == "uvloop" or not (briefly or only):
        yield Run(f"Python {current}, under uvloop", here, [*pytest, "tests/transports", "tests/client", "--uvloop"])
    for version, python in found.items():
        if version != current and only in {None, version}:
            made = environment(version, python, CONSTRAINTS)
            name = f"Python {version}, what moves credits" if briefly else f"Python {version}"
            yield Run(name, made, [*portable, *(MOVES_CREDITS if briefly else [])])
    if only == "oldest" or not (briefly or only):
        version, python = next(iter(found.items()))
        oldest = environment("oldest", python, oldest_constraints(), without=["schemathesis", "pydantic-ai-slim"])
        yield Run(f"Python {version}, oldest dependencies", oldest, [*portable, *FOR_THE_OLDEST])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["here", "uvloop", "oldest", *VERSIONS], help="one of the runs")
    parser.add_argument("--briefly", action="store_true", help="on further Pythons only what moves credits")
    chosen, options = parser.parse_known_args()
    runs = []
    for run in plan(Path(sys.executable), only=chosen.only, briefly=chosen.briefly):
        run.start(["-n", "auto", "--durations", "20", *options])
        runs.append(run)
        if run.name.endswith("everything"):
            coverage = [sys.executable, ROOT / "scripts" / "coverage_by_room.py"]
            run.succeeded &= subprocess.run(coverage, cwd=ROOT, check=False).returncode == 0
    width = max(len(run.name) for run in runs)
    print()
    for run in runs:
        passed = run.counts.get("passed", 0)
        print(f"{run.name:{width}}  {passed:5} passed  {run.failures:3} failed  {run.seconds:4.0f} s")
    passed, failed = sum(run.counts.get("passed", 0) for run in runs), sum(run.failures for run in runs)
    print(f"\n{passed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
