"""Fixtures that every test shares."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """FastAPI services run on asyncio, and so do these tests."""
    return "asyncio"


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
