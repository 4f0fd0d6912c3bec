"""`autumn refunds`."""

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path

import pytest

from cli.processes import Run
from fastapi_autumn.settlement import Entry
from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.store import Account, Batch, Delivered, Ended

_HOUR_MS = 3600 * 1000


def _entry(charge_id: str, **more: object) -> Entry:
    now = time.time_ns() // 1_000_000
    fields = {
        "charge_id": charge_id,
        "customer_id": "ada",
        "feature_id": "ai_usage",
        "credits": Decimal(3),
        "cost": Decimal(0),
        "taken": Decimal(3),
        "key_number": 1,
        "doubt": Doubt.NONE,
        "reason": "the handler failed",
        "created_at": now,
    }
    return Entry(**(fields | more))  # type: ignore[arg-type] # the fields are those of an entry


@pytest.fixture
def outbox(here: Path) -> Path:
    """An outbox with a charge that is due and one that has a shortfall, of two organisations."""
    path = here / ".autumn/outbox.db"
    now = time.time_ns() // 1_000_000

    async def write(account: Account, entry: Entry, *, short: bool) -> None:
        store = SqlStore(f"sqlite+aiosqlite:///{path}", account)
        await store.open()
        await store.commit(Batch("w", 1, 0, 0, now, {entry.charge_id: Ended(entry, owed=True)}))
        if short:
            await store.claim("w", limit=1, doubtful=False, now=now, until=now)
            await store.commit(Batch("w", 2, 1, 0, now, {entry.charge_id: Delivered(entry, "shortfall")}))
        await store.close()

    async def fill() -> None:
        ours = Account("digest-1", "https://api.useautumn.com", "live", "acme")
        theirs = Account("digest-2", "https://api.useautumn.com", "sandbox")
        error = "Autumn answered 404 customer_not_found"
        short = _entry("short-2", attempts=4, last_error=error, created_at=now - _HOUR_MS)
        await write(ours, short, short=True)
        await write(theirs, _entry("due-1", due_at=now + _HOUR_MS), short=False)

    asyncio.run(fill())
    return path


def test_without_an_outbox_nothing_waits(autumn: Run, here: Path) -> None:
    """Looking does not create the file."""
    result = autumn("refunds", "list")
    assert (result.returncode, result.stderr) == (0, "Nothing waits.\n")
    assert not here.joinpath(".autumn").exists()


def test_list_shows_what_waits_whose_it_is_and_why(outbox: Path, autumn: Run) -> None:
    """Oldest first, of every account, with the state and the last error."""
    found = json.loads(autumn("refunds", "list", "--format", "json").stdout)["list"]
    assert [(one["charge_id"], one["state"], one["account"]) for one in found] == [
        ("short-2", "shortfall", "acme (live)"),
        ("due-1", "due", "digest-2 (sandbox)"),
    ]
    assert found[0]["last_error"] == "Autumn answered 404 customer_not_found"
    assert (found[0]["taken"], found[0]["cost"]) == ("3", "0")
    shown = autumn("refunds", "list", "--state", "due").stdout
    assert "due-1" in shown
    assert "short-2" not in shown


def test_show_has_every_field(outbox: Path, autumn: Run) -> None:
    """One charge, with its reason."""
    shown = autumn("refunds", "show", "short-2").stdout
    assert "reason:" in shown
    assert "the handler failed" in shown
    assert "https://api.useautumn.com" in shown


@pytest.mark.parametrize("command", ["show", "retry", "drop"])
def test_an_unknown_charge_is_an_error(command: str, outbox: Path, autumn: Run) -> None:
    """The sentence names the list."""
    result = autumn("refunds", command, "nope-1")
    assert result.returncode == 1
    assert result.stderr == "Error: The outbox has no charge 'nope-1'; see what waits with autumn refunds list.\n"


def test_an_unknown_charge_without_an_outbox_is_the_same_error(autumn: Run) -> None:
    """There need not be a file."""
    assert "The outbox has no charge 'nope-1'" in autumn("refunds", "drop", "nope-1", "--yes").stderr


def test_retry_makes_a_shortfall_due(outbox: Path, autumn: Run) -> None:
    """The service sees to it, and asks the event log first."""
    result = autumn("refunds", "retry", "short-2")
    assert result.returncode == 0
    assert "short-2 is due" in result.stdout
    shown = json.loads(autumn("refunds", "show", "short-2", "--format", "json").stdout)
    assert (shown["state"], shown["doubt"]) == ("due", "unknown")


def test_a_charge_that_is_due_needs_no_retry(outbox: Path, autumn: Run) -> None:
    """Only a person's decision is asked for."""
    result = autumn("refunds", "retry", "due-1")
    assert result.returncode == 1
    assert "due-1 is due and is settled by itself" in result.stderr


@pytest.mark.parametrize(("answer", "code"), [("n\n", 3), ("y\n", 0)])
def test_drop_asks_first(answer: str, code: int, outbox: Path, autumn: Run) -> None:
    """A refund that is dropped is money that a customer does not get back."""
    result = autumn("refunds", "drop", "short-2", answers=answer)
    assert result.returncode == code
    assert "Forget short-2 (3 taken, 0 to be paid, by ada) without telling Autumn?" in result.stderr
    assert autumn("refunds", "show", "short-2").returncode == (1 if code == 0 else 0)


def test_an_outbox_that_cannot_be_opened_is_named(autumn: Run, here: Path) -> None:
    """The file is something else, or the address is none."""
    here.joinpath("outbox.db").write_bytes(b"This is certainly not a database." * 100)
    broken = autumn("refunds", "list", env={"AUTUMN_OUTBOX_URL": "sqlite+aiosqlite:///outbox.db"})
    assert broken.returncode == 1
    assert "The outbox cannot be opened" in broken.stderr
    nonsense = autumn("refunds", "list", env={"AUTUMN_OUTBOX_URL": "nonsense"})
    assert nonsense.returncode == 1
    assert "AUTUMN_OUTBOX_URL is no database address" in nonsense.stderr
