"""Fixtures for the tests of applications that charge through Autumn.

pytest finds them by itself once the package is installed. Everything is imported inside the fixtures, so that they cost
nothing where they are not used. `docs/testing.md` shows them at work.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastapi_autumn.catalog import Catalog
    from fastapi_autumn.emulator import Emulator
    from fastapi_autumn.models import CustomerRecord
    from fastapi_autumn.settings import AutumnSettings

__all__ = ["autumn_catalog", "autumn_customer", "autumn_emulator", "autumn_settings"]

_EMULATOR_FILE = "autumn-emulator.db"


@pytest.fixture
def autumn_catalog() -> "Catalog":
    """The features and plans of `autumn_emulator`; override it to test with others.

    Default: `autumn_config.py` in the working directory, or else the example of the documentation.
    """
    from fastapi_autumn.autumn import default_catalog  # noqa: PLC0415 - see the module

    return default_catalog()


@pytest.fixture
def autumn_emulator(tmp_path: Path, autumn_catalog: "Catalog") -> "Iterator[Emulator]":
    """The emulator that applications with `autumn_settings` charge, with nobody in it yet.

    It shares a file with theirs, so what a test does here holds there at once: `clock.advance(days=31)`,
    `faults.add("balances.check", Fault(kind="fail"))`, `call("billing.attach", {...})`.
    """
    from fastapi_autumn.emulator import Emulator  # noqa: PLC0415 - see the module

    emulator = Emulator(tmp_path / _EMULATOR_FILE, catalog=autumn_catalog)
    yield emulator
    emulator.close()


@pytest.fixture
def autumn_settings(tmp_path: Path, autumn_emulator: "Emulator") -> "AutumnSettings":  # noqa: ARG001 - has to be seeded
    """Settings for an application under test: `autumn_emulator`, and an outbox that goes with the test.

    `AUTUMN_*` variables count for everything else; a developer's `.env` does not.
    """
    from fastapi_autumn.settings import AutumnSettings  # noqa: PLC0415 - see the module

    return AutumnSettings(
        _env_file=None,
        secret_key=None,
        emulator=True,
        emulator_path=tmp_path / _EMULATOR_FILE,
        outbox_url=f"sqlite+aiosqlite:///{tmp_path / 'autumn-outbox.db'}",
        event_delay=0.0,  # the emulator's event log never lags behind
    )


@pytest.fixture
def autumn_customer(autumn_emulator: "Emulator") -> "Callable[[str], CustomerRecord]":
    """A function from a customer's id to the customer as Autumn has them now, created if need be.

    It sees past faults: `autumn_customer("ada").balances["ai_credits"].remaining`.
    """
    from fastapi_autumn.models import CustomerRecord  # noqa: PLC0415 - see the module

    def customer(customer_id: str) -> CustomerRecord:
        answer = autumn_emulator.call("customers.get_or_create", {"customer_id": customer_id})
        return CustomerRecord.model_validate(answer)

    return customer
