"""`autumn refunds`."""

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path

import pytest

from cli.processes import Run
from fastapi_autumn.settlement import Action, Entry
from fastapi_autumn.settlement.outbox import Outbox

_DAY = 24 * 3600 * 1000


def _entry(charge_id: str, **more: object) -> Entry:
    now = time.time_ns() // 1_000_000
    fields = {
        "charge_id": charge_id,
        "customer_id": "ada",
        "feature_id": "ai_usage",
        "credits": Decimal(3),
        "action": Action.TRACK,
        "value": Decimal(-3),
        "reason": "the handler failed",
        "created_at": now,
    }
    return Entry(**(fields | more))  # type: ignore[arg-type] # the fields are those of an entry


@pytest.fixture
def outbox(here: Path) -> Path:
    """An outbox with a charge that is due, one that is parked, and one of which nobody knows any more."""
    path = here / ".autumn/outbox.db"
    long_ago = time.time_ns() // 1_000_000 - 2 * _DAY
    parked = [
        _entry("parked-2", attempts=4, last_error="Autumn answered 404 customer_not_found"),
        _entry("lost-3", maybe_sent_at=long_ago, created_at=long_ago),
    ]

    async def fill() -> None:
        outbox = Outbox(f"sqlite+aiosqlite:///{path}")
        await outbox.start()
        for entry in parked:
            outbox.put(entry)
        await outbox.flush()
        for entry in await outbox.claim(len(parked)):
            outbox.park(entry)
        outbox.put(_entry("due-1", due_at=long_ago + 10 * _DAY))
        await outbox.flush()
        await outbox.stop(within=1)

    asyncio.run(fill())
    return path


def test_without_an_outbox_nothing_waits(autumn: Run, here: Path) -> None:
    """Looking does not create the file."""
    result = autumn("refunds", "list")
    assert (result.returncode, result.stderr) == (0, "Nothing waits.\n")
    assert not here.joinpath(".autumn").exists()


def test_list_shows_what_waits_and_why(outbox: Path, autumn: Run) -> None:
    """Oldest first, with the state and the last error."""
    found = json.loads(autumn("refunds", "list", "--format", "json").stdout)["list"]
    assert [(one["charge_id"], one["state"]) for one in found] == [
        ("lost-3", "parked"),
        ("parked-2", "parked"),
        ("due-1", "due"),
    ]
    assert found[1]["last_error"] == "Autumn answered 404 customer_not_found"
    assert found[1]["value"] == "-3"
    shown = autumn("refunds", "list", "--state", "due").stdout
    assert "due-1" in shown
    assert "parked-2" not in shown


def test_show_has_every_field(outbox: Path, autumn: Run) -> None:
    """One charge, with its reason."""
    shown = autumn("refunds", "show", "parked-2").stdout
    assert "reason:      the handler failed" in shown
    assert "attempts:    4" in shown


@pytest.mark.parametrize("command", ["show", "retry", "drop"])
def test_an_unknown_charge_is_an_error(command: str, outbox: Path, autumn: Run) -> None:
    """The sentence names the list."""
    result = autumn("refunds", command, "nope-1")
    assert result.returncode == 1
    assert result.stderr == "Error: The outbox has no charge 'nope-1'; see what waits with autumn refunds list.\n"


def test_an_unknown_charge_without_an_outbox_is_the_same_error(autumn: Run) -> None:
    """There need not be a file."""
    assert "The outbox has no charge 'nope-1'" in autumn("refunds", "drop", "nope-1", "--yes").stderr


def test_retry_makes_a_parked_charge_due(outbox: Path, autumn: Run) -> None:
    """It is sent by the service, not by the command."""
    result = autumn("refunds", "retry", "parked-2")
    assert result.returncode == 0
    assert "parked-2 is due" in result.stdout
    assert '"state": "due"' in autumn("refunds", "show", "parked-2", "--format", "json").stdout


def test_a_charge_that_is_due_needs_no_retry(outbox: Path, autumn: Run) -> None:
    """Only a person's decision is asked for."""
    result = autumn("refunds", "retry", "due-1")
    assert result.returncode == 1
    assert "due-1 is due and will be sent by itself" in result.stderr


@pytest.mark.parametrize(("more", "code", "state"), [((), 3, "parked"), (("--yes",), 0, "due")])
def test_a_retry_that_may_do_it_twice_asks_first(
    more: tuple[str, ...], code: int, state: str, outbox: Path, autumn: Run
) -> None:
    """Autumn has forgotten the key: the command says what protects now and where to look, and waits for a yes."""
    result = autumn("refunds", "retry", "lost-3", *more)
    assert result.returncode == code
    assert "event log is asked first" in result.stderr
    assert "autumn events --customer ada" in result.stderr
    assert f'"state": "{state}"' in autumn("refunds", "show", "lost-3", "--format", "json").stdout


@pytest.mark.parametrize(("answer", "code"), [("n\n", 3), ("y\n", 0)])
def test_drop_asks_first(answer: str, code: int, outbox: Path, autumn: Run) -> None:
    """A refund that is dropped is money that a customer does not get back."""
    result = autumn("refunds", "drop", "parked-2", answers=answer)
    assert result.returncode == code
    assert "Forget parked-2 (track -3 for ada) without telling Autumn?" in result.stderr
    assert autumn("refunds", "show", "parked-2").returncode == (1 if code == 0 else 0)


def test_an_outbox_that_cannot_be_opened_is_named(autumn: Run, here: Path) -> None:
    """The file is something else, or the address is none."""
    here.joinpath("outbox.db").write_bytes(b"This is certainly not a database." * 100)
    broken = autumn("refunds", "list", env={"AUTUMN_OUTBOX_URL": "sqlite+aiosqlite:///outbox.db"})
    assert broken.returncode == 1
    assert "the outbox cannot be opened" in broken.stderr
    nonsense = autumn("refunds", "list", env={"AUTUMN_OUTBOX_URL": "nonsense"})
    assert nonsense.returncode == 1
    assert "AUTUMN_OUTBOX_URL is no database address" in nonsense.stderr
