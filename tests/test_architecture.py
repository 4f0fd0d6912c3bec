"""Rules about the code itself, so that they hold without anybody remembering them."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import fastapi_autumn

pytestmark = pytest.mark.static

ROOT = Path(__file__).parents[1]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DEMO = sorted((ROOT / "demo_app").rglob("*.py"))

LONGEST = 400
LONGEST_WITH_A_REASON = 700
REASONS = {
    "src/fastapi_autumn/models.py": "what travels on the wire, in one place: names and types, no logic",
    "src/fastapi_autumn/charge/_charges.py": "how a charge opens, in order, and how it is refused",
    "src/fastapi_autumn/emulator/_app.py": "from bytes to an operation and back, in the order in which it happens",
    "src/fastapi_autumn/settlement/sql.py": "one table and what is done to its rows; every method is one transaction",
    "tests/charge/test_charges.py": "how a charge opens, in each way and with each fault",
    "tests/charge/test_delivery.py": "each step at Autumn with each fault, to be read against one state machine",
    "tests/settlement/test_outbox.py": "one writer, and everything that may go wrong around it",
    "tests/simulation/mutations.py": "one table of every protection, and how each is taken out",
    "tests/simulation/network.py": "what may happen to a request on its way, to be read against one list of faults",
    "tests/simulation/plan.py": "what may go wrong in a scenario, theme by theme",
    "tests/simulation/scenario.py": "one scenario, from its plan to its verdict",
    "tests/test_attempts.py": "one header, and what becomes of each attempt under it",
    "tests/transports/test_contract.py": "one contract for both transports",
    "tests/settlement/test_store.py": "one contract for every store, to be read against one interface",
    "tests/test_gate.py": "one application per case, written out so that each can be read by itself",
}


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment in the root of the project."""
    program = Path(sys.executable).with_name(command)
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.partition(".")[0] for name in names}


def test_imports_point_downwards() -> None:
    """The contracts of pyproject.toml hold: who may import whom, and who names HTTP libraries."""
    result = run("lint-imports", "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 kept, 0 broken" in result.stdout


def test_nothing_imports_from_the_facade() -> None:
    """It is for users; inside, its lazy names would hide who depends on whom."""
    offenders = [
        f"{name_of(file)}: {alias.name}"
        for file in SOURCE
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "fastapi_autumn"
        for alias in node.names
        if alias.name in fastapi_autumn.__all__
    ]
    assert offenders == []


def test_every_test_says_what_it_proves() -> None:
    """A sentence on each test; whoever breaks one learns from it what was promised."""
    result = run("interrogate", "--fail-under=100", "--ignore-module", "--whitelist-regex=^test_", "-vv", "tests")
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if "MISSED" in line)


@pytest.mark.parametrize(
    "file",
    [file for file in [*SOURCE, *DEMO] if any(name.split(".")[0] == "fastapi" for name in imported(file))],
    ids=name_of,
)
def test_signatures_that_fastapi_reads_are_not_strings(file: Path) -> None:
    """FastAPI resolves annotations at run time; postponed ones fail for names that are local to a function."""
    assert "__future__" not in imported(file)


@pytest.mark.parametrize("file", [*SOURCE, *TESTS, *DEMO], ids=name_of)
def test_files_are_short(file: Path) -> None:
    """A file that does not fit into a head is two files; the few exceptions say why, and still end."""
    lines = len(file.read_text().splitlines())
    assert lines <= (LONGEST_WITH_A_REASON if name_of(file) in REASONS else LONGEST)


@pytest.mark.parametrize("name", REASONS)
def test_an_exception_is_still_needed(name: str) -> None:
    """When a file has become short its exception goes."""
    assert len((ROOT / name).read_text().splitlines()) > LONGEST


@pytest.mark.parametrize("kind", ["class", "file"])
def test_no_name_is_used_twice(kind: str) -> None:
    """In the tests one name means one thing: whoever searches for it, or reads it in a report, finds the one."""
    files = [file for file in TESTS if file.name != "conftest.py"]
    if kind == "file":
        names = [file.name for file in files]
    else:
        trees = [ast.parse(file.read_text()) for file in TESTS]
        names = [node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sorted(name for name, count in Counter(names).items() if count > 1) == []
