"""Fixtures that every test shares."""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import coverage
import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["leaks", "pytester"]

_LONG = ("chaos", "slow", "static", "docs", "interop")


# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("without a clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without a clock")


def pytest_configure() -> None:
    """Say where the simulated world begins, for all processes of a run. `SIMULATION_SEED=new` looks where nobody has.

    That is not what a run does by itself, as long as about one new scenario in several thousand finds something: a run
    of the tests says something about the change, and `make simulate` about the rest.
    """
    if os.environ.setdefault("SIMULATION_SEED", "900000") == "new":
        os.environ["SIMULATION_SEED"] = str(secrets.randbelow(10**9))


def pytest_report_header() -> str:
    """Name the seeds of this run, so that they can be played again."""
    return f"simulated world: SIMULATION_SEED={os.environ['SIMULATION_SEED']}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run the async tests on uvloop's event loop")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Begin with what takes long, so that no worker is left with it alone at the end. The rest stays shuffled."""
    yield
    items.sort(key=lambda item: min((_LONG.index(name) for name in _LONG if item.get_closest_marker(name)), default=9))


def pytest_sessionfinish() -> None:
    """Keep what was measured, now: a process of pytest-xdist that takes more than ten seconds to end is killed."""
    if (measured := coverage.Coverage.current()) is not None:
        measured.save()


@pytest.fixture(scope="session")
def anyio_backend(pytestconfig: pytest.Config) -> tuple[str, dict[str, bool]]:
    """FastAPI services run on asyncio, and so do these tests."""
    return "asyncio", {"use_uvloop": bool(pytestconfig.getoption("uvloop"))}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of the machine it runs on."""
    for name in [name for name in os.environ if name.upper().startswith("AUTUMN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def login_ports() -> Iterator[None]:
    """The five ports to which Autumn sends a browser back, while no other test process uses them."""
    with Path(tempfile.gettempdir(), "fastapi-autumn-login-ports").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
