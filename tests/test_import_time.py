"""Importing the package is cheap, and heavy libraries load when they are first used."""

import subprocess
import sys

import pytest

ANYWAY = "import fastapi, httpx, pydantic_settings"
FIRST_LINES = "from fastapi_autumn import Autumn, AutumnMiddleware, ModelCharge"

# Each belongs to a part of the package that a service with Autumn's real API may never use, or only once it runs.
HEAVY = [
    "sqlalchemy",
    "aiosqlite",
    "typer",
    "rich",
    "uvicorn",
    "genai_prices",
    "pytest",
    "pygments",
]
ROOMS = ["emulator", "catalog", "cli", "settlement.sql", "settlement.sender", "pytest_plugin"]


def run(program: str) -> str:
    """What a fresh interpreter prints; isolated, so that the directory and the variables of the tests do not count."""
    return subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True).stdout


def test_the_first_lines_of_an_application_cost_little() -> None:
    """Importing this package takes less than half of what FastAPI, httpx and settings take in the same process.

    In the processor's time, and in the best of several interpreters: a busy machine only ever adds to it.
    """
    timed = "import time\nbegun = time.process_time()\n{}\nthen = time.process_time()\n{}\n"
    program = timed.format(ANYWAY, FIRST_LINES) + "print((time.process_time() - then) / (then - begun))"
    assert any(float(run(program)) < 0.5 for _ in range(5))


@pytest.mark.parametrize("statement", ["import fastapi_autumn", FIRST_LINES, f"{FIRST_LINES}, AutumnClient, Customer"])
def test_heavy_parts_wait_until_they_are_used(statement: str) -> None:
    """No database, command line, emulator or extra is loaded by the imports of an application."""
    # httpx loads rich where it is installed, so what is loaded anyway does not count.
    program = f"import sys\n{ANYWAY}\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    loaded = set(run(program).split())
    assert "fastapi_autumn" in loaded
    unwanted = {*HEAVY, *(f"fastapi_autumn.{room}" for room in ROOMS)}
    assert loaded & unwanted == set()


def test_the_package_by_itself_loads_nothing() -> None:
    """`import fastapi_autumn` is a table of names; not even FastAPI comes with it."""
    loaded = set(run("import sys\nimport fastapi_autumn\nprint(*sys.modules)").split())
    assert {name for name in loaded if name.startswith("fastapi_autumn.")} == {"fastapi_autumn._version"}
    assert loaded & {"fastapi", "starlette", "pydantic", "httpx"} == set()
