"""Fixtures that every test shares."""

import os

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
