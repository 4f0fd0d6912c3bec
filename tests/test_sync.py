"""The synchronous door: charges of Celery tasks, scripts and threads, and how their process ends."""

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.errors import BudgetExceeded, ConfigurationError, InsufficientCredits
from fastapi_autumn.pricing import tokens
from service import until

PRICES = {"small": 1, "large": 20, "metered": tokens(input=1000, output=1000)}


@pytest.fixture
def autumn(autumn_settings):
    made = Autumn(autumn_settings, prices=PRICES)
    yield made
    made.sync.close()
    made.emulator.close()


@pytest.fixture
def used(autumn, autumn_customer):
    def total(customer="ada"):
        autumn.sync.settled()
        return autumn_customer(customer).balances["ai_credits"].usage

    return total


def test_what_a_block_costs(autumn, used):
    """Kept when it ends, given back when it raises, settled and metered by hand, refused when it does not fit."""
    with autumn.sync.charge("ada", "small") as charge:
        assert (charge.credits, charge.balance.remaining) == (1, 49)
    with pytest.raises(ZeroDivisionError), autumn.sync.charge("ada", "large"):
        _ = 1 / 0
    assert used() == 1
    with autumn.sync.charge("ada", "large") as charge:
        charge.settle("0.5")
    with autumn.sync.charge("ada", "metered", request={"max_tokens": 100, "prompt": "Hi"}) as charge:
        charge.used(input=20, output=30)
    assert used() == Decimal("1.55")
    with pytest.raises(InsufficientCredits), autumn.sync.charge("ada", "small", credits=50):
        pytest.fail("it was let through")
    assert used() == Decimal("1.55")


def test_budgets(autumn, used):
    """Steps are taken from one hold, and refused when they do not fit."""
    with autumn.sync.budget("ada", 3) as budget:
        for _ in range(3):
            with autumn.sync.step(budget, "small"):
                pass
        with pytest.raises(BudgetExceeded), autumn.sync.step(budget, "small"):
            pytest.fail("it was let through")
    assert used() == 3
    with pytest.raises(ZeroDivisionError), autumn.sync.budget("ada", 3) as budget, autumn.sync.step(budget, "small"):
        _ = 1 / 0
    assert used() == 3


def test_threads_share_one_loop(autumn, used):
    """Twenty calls of eight threads, every other of which fails."""

    def call(number):
        try:
            with autumn.sync.charge("ada", "small"):
                _ = 1 / (number % 2)
        except ZeroDivisionError:
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(20)))
        assert sum(thread.name == "autumn-sync" for thread in threading.enumerate()) == 1
    assert used() == 10


async def test_it_does_not_hold_up_an_event_loop(autumn):
    """In a coroutine it says what to use instead; in a thread of the same program it works."""
    with pytest.raises(ConfigurationError, match="would hold up the event loop"), autumn.sync.charge("ada", "small"):
        pytest.fail("it was let through")

    def charged():
        with autumn.sync.charge("ada", "small") as charge:
            return charge.credits

    assert await asyncio.to_thread(charged) == 1


def test_closing_delivers_and_the_next_use_starts_anew(autumn, autumn_customer):
    """`close` sends what is due and ends the thread; nothing is left of it, and it can be done twice."""
    with pytest.raises(ZeroDivisionError), autumn.sync.charge("ada", "large"):
        _ = 1 / 0
    autumn.sync.close()
    autumn.sync.close()
    assert "autumn-sync" not in [thread.name for thread in threading.enumerate()]
    assert autumn_customer("ada").balances["ai_credits"].usage == 0
    with autumn.sync.charge("ada", "small") as charge:
        assert charge.verified
    autumn.sync.close()
    assert autumn_customer("ada").balances["ai_credits"].usage == 1


def test_a_start_that_fails_is_told_to_its_caller(autumn_settings, tmp_path):
    """An outbox that cannot be opened is an exception where the charge is asked for, and no thread that waits."""
    (tmp_path / "file").write_text("")
    settings = autumn_settings.model_copy(update={"outbox_url": f"sqlite+aiosqlite:///{tmp_path}/file/outbox.db"})
    autumn = Autumn(settings, prices=PRICES)
    with pytest.raises(ConfigurationError, match="The outbox cannot be opened"), autumn.sync.charge("ada", "small"):
        pytest.fail("it was let through")
    assert "autumn-sync" not in [thread.name for thread in threading.enumerate()]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from fastapi_autumn import Autumn, AutumnSettings

folder, how = Path(sys.argv[1]), sys.argv[2]
autumn = Autumn(
    AutumnSettings(
        _env_file=None, emulator=True, emulator_path=folder / "emulator.db", event_delay=0.0, outbox_lease=0.5,
        outbox_url=f"sqlite+aiosqlite:///{folder}/outbox.db",
    ),
    prices={"small": 1, "large": 20},
)
if how == "forks":
    with autumn.sync.charge("ada", "small"):
        pass
    child = os.fork()
    with autumn.sync.charge("ada", "small"):
        pass
    autumn.sync.close()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
elif how == "is killed":
    with autumn.sync.charge("ada", "large"):
        os.kill(os.getpid(), signal.SIGKILL)
else:
    try:
        with autumn.sync.charge("ada", "large"):
            raise ValueError
    except ValueError:
        pass
"""


@pytest.mark.parametrize(
    ("how", "cost", "status"), [("ends", 0, 0), ("forks", 3, 0), ("is killed", 0, -signal.SIGKILL)]
)
def test_how_a_process_ends(tmp_path, how, cost, status):
    """A refund leaves before a process exits; a fork has its own loop; a kill is given back by the next."""
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), how]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr

    settings = AutumnSettings(
        _env_file=None,
        emulator=True,
        emulator_path=tmp_path / "emulator.db",
        event_delay=0.0,
        outbox_lease=0.5,
        timeout=0.5,
        outbox_url=f"sqlite+aiosqlite:///{tmp_path}/outbox.db",
    )
    autumn = Autumn(settings, prices=PRICES)

    def used():
        customer = autumn.emulator.call("customers.get_or_create", {"customer_id": "ada"})
        return customer["balances"]["ai_credits"]["usage"]

    async def recovered():
        async with autumn.running():
            await until(lambda: used() == cost)

    if how == "is killed":
        assert used() == 20
        asyncio.run(recovered())
    # Otherwise it was told before the process had ended.
    assert used() == cost
    autumn.emulator.close()
