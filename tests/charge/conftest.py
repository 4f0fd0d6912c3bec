"""A bench to charge on."""

import pytest

from charge.bench import bench_of
from fastapi_autumn.charge import _event_log


@pytest.fixture(autouse=True)
def _quick_turns(monkeypatch):
    """Look-ups need not spare an Autumn that is in this process."""
    monkeypatch.setattr(_event_log, "_SECONDS_BETWEEN_SUMS", 0.0)
    monkeypatch.setattr(_event_log, "_SECONDS_BETWEEN_PAGES", 0.0)


@pytest.fixture
async def bench():
    async with bench_of() as made:
        yield made
