"""Many callers at once, several processes on one file, and large files."""

import asyncio
import multiprocessing
import sqlite3
from collections import Counter
from itertools import count
from time import process_time

import pytest

from emulator.conftest import CATALOG, START, EmulatorClient
from fastapi_autumn.emulator import Emulator

WORKERS = 4


def _work(path, job, number, start, answers):
    """Run a part of a job in a process of its own, when all the others are ready too."""

    async def run():
        emulator = Emulator(path)
        async with EmulatorClient(emulator) as autumn:
            start.wait(60)
            for answer in await asyncio.gather(*(job(autumn, number * 50 + part) for part in range(50))):
                answers.put(answer)
        emulator.close()

    asyncio.run(run())


def in_processes(path, job):
    """Do a job 200 times at once, from four processes, and return the answers."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(WORKERS), context.Queue()
    workers = [context.Process(target=_work, args=(path, job, number, start, answers)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in range(WORKERS * 50)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return found


async def check(autumn, number):
    body = {"customer_id": "ann", "feature_id": "usage", "required_balance": 1, "send_event": True}
    return (await autumn.ok("balances.check", **body))["allowed"]


async def hold(autumn, number):
    lock = {"enabled": True, "lock_id": f"h{number}"}
    body = {"customer_id": "ann", "feature_id": "usage", "required_balance": 1, "lock": lock}
    return f"h{number}" if (await autumn.ok("balances.check", **body))["allowed"] else None


async def confirm(autumn, number):
    return (await autumn.call("balances.finalize", lock_id="one", action="confirm", override_value=5)).status_code


async def create(autumn, number):
    shown = await autumn.ok("customers.get_or_create", customer_id="new", name=f"N{number}")
    return shown["name"], len(shown["subscriptions"]), shown["balances"]["credits"]["remaining"]


@pytest.fixture
def path(tmp_path):
    """The file of an emulator with one customer, ann, who has 50 credits."""
    emulator = Emulator(tmp_path / "emulator.db", catalog=CATALOG)

    async def fill():
        async with EmulatorClient(emulator) as autumn:
            await autumn.ok("customers.get_or_create", customer_id="ann")

    asyncio.run(fill())
    emulator.close()
    return tmp_path / "emulator.db"


def ask(path, job):
    """Do one thing with the emulator on a file."""

    async def run():
        emulator = Emulator(path)
        async with EmulatorClient(emulator) as autumn:
            answer = await job(autumn)
        emulator.close()
        return answer

    return asyncio.run(run())


def _open(path, start, answers):
    start.wait(60)
    Emulator(path, catalog=CATALOG).close()
    answers.put("opened")


@pytest.mark.slow
def test_workers_that_start_together_share_a_new_file(tmp_path):
    """Six processes open a file that is not there yet; each gets it, and the catalog is in it once."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(6), context.Queue()
    workers = [context.Process(target=_open, args=(tmp_path / "new.db", start, answers)) for _ in range(6)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=120) for _ in workers] == ["opened"] * 6
    for worker in workers:
        worker.join()
    assert len(ask(tmp_path / "new.db", lambda autumn: autumn.ok("plans.list"))["list"]) == 3


@pytest.mark.slow
def test_200_checks_at_once_from_four_processes(path):
    """Fifty credits allow exactly fifty of two hundred checks, and the balance ends at zero."""
    assert Counter(in_processes(path, check)) == {True: 50, False: 150}
    assert ask(path, lambda autumn: autumn.remaining()) == 0


@pytest.mark.slow
def test_200_holds_at_once_from_four_processes(path):
    """Fifty holds are taken, and releasing them at once brings back fifty credits."""
    held = [lock for lock in in_processes(path, hold) if lock]
    assert len(held) == 50

    async def release(autumn):
        calls = [autumn.ok("balances.finalize", lock_id=lock, action="release") for lock in held]
        await asyncio.gather(*calls)
        return await autumn.remaining()

    assert ask(path, release) == 50


@pytest.mark.slow
def test_one_of_many_confirmations_counts(path):
    """A hold that is confirmed two hundred times at once is confirmed once."""
    lock = {"enabled": True, "lock_id": "one"}
    body = {"customer_id": "ann", "feature_id": "usage", "required_balance": 1, "lock": lock}
    ask(path, lambda autumn: autumn.ok("balances.check", **body))
    assert Counter(in_processes(path, confirm)) == {200: 1, 400: 199}
    assert ask(path, lambda autumn: autumn.remaining()) == 45


@pytest.mark.slow
def test_200_creations_of_one_customer(path):
    """Everybody gets the same customer, with one plan and one grant."""
    answers = in_processes(path, create)
    assert len(set(answers)) == 1
    assert answers[0][1:] == (1, 50)


@pytest.fixture
def large(path):
    """The same file with 10,000 customers and 1,000,000 events."""
    database = sqlite3.connect(path)
    (document,) = database.execute("SELECT doc FROM customers").fetchone()
    database.executemany(
        "INSERT INTO customers (id, created_at, doc) VALUES (?, ?, ?)",
        ((f"c{number}", number, document.replace('"ann"', f'"c{number}"')) for number in range(10_000)),
    )
    database.executemany(
        "INSERT INTO events (id, timestamp, customer, feature_id, value, properties)"
        " VALUES (?, ?, ?, 'usage', '1', '{}')",
        ((f"evt_{number}", 1_700_000_000_000 + number * 60_000, number % 10_000 + 1) for number in range(1_000_000)),
    )
    database.commit()
    database.close()
    return path


async def seconds(job, times):
    """Measure the processor time of one call, on average."""
    start = process_time()
    for _ in range(times):
        await job()
    return (process_time() - start) / times


@pytest.mark.slow
def test_a_large_file_is_as_quick_as_a_small_one(large, tmp_path):
    """Nothing is searched from end to end: with 10,000 customers and 1,000,000 events, a call takes about as long.

    Going through all of either takes some hundred times as long.
    """
    # Time passes quickly here, because events may be listed five times a second only.
    ticks = count(START, 300).__next__
    small = Emulator(tmp_path / "small.db", catalog=CATALOG, clock=ticks)
    big = Emulator(large, clock=ticks)

    async def measure(emulator):
        async with EmulatorClient(emulator) as autumn:
            await autumn.ok("customers.get_or_create", customer_id="zoe")
            body = {"customer_id": "zoe", "feature_id": "usage"}
            jobs = {
                "check": lambda: autumn.ok("balances.check", **body),
                "track": lambda: autumn.ok("balances.track", value=0.001, **body),
                "list": lambda: autumn.ok("customers.list", limit=1),
                "events": lambda: autumn.ok("events.list", limit=1),
                "aggregate": lambda: autumn.ok("events.aggregate", range="24h", **body),
            }
            return {name: min([await seconds(job, 100) for _ in range(3)]) for name, job in jobs.items()}

    slow, quick = asyncio.run(measure(big)), asyncio.run(measure(small))
    small.close()
    big.close()
    for name in quick:
        assert slow[name] < 10 * quick[name], (name, slow[name], quick[name])
