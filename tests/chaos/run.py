"""Thousands of calls through everything that can go wrong, and then the books.

    PYTHONPATH=tests python -m chaos.run --calls 7500

Runs both settlements on both databases, one after the other, prints a table, and fails if anything is off.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from chaos.books import Books, audit
from chaos.client import Call
from chaos.settings import COUNTS, HOLD_TTL, KILLS, reported
from fastapi_autumn.emulator import EMULATOR_KEY
from fastapi_autumn.settlement._tables import charges as rows
from fastapi_autumn.settlement._tables import workers
from postgres import Postgres

CUSTOMERS = 200
WORKERS = 3
AT_ONCE = 24
PLENTY = 1_000_000
KILL_GRACE_SECONDS = 1.0
DRAIN_SECONDS = 120
TESTS = Path(__file__).resolve().parents[1]

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"operation": "*", "kind": "fail", "status": 500, "probability": 0.006},
    "429": {"operation": "*", "kind": "fail", "status": 429, "probability": 0.006},
    "reset": {"operation": "*", "kind": "reset", "probability": 0.006},
    "drop after the work": {"operation": "*", "kind": "drop", "probability": 0.006},
    "late": {"operation": "*", "kind": "delay", "delay_ms": 200, "probability": 0.01},
    "later than the time-out": {"operation": "*", "kind": "late", "delay_ms": 1300, "probability": 0.006},
    "202 without work": {"operation": "balances.check", "kind": "unverified", "probability": 0.01},
    "202 with work": {"operation": "balances.check", "kind": "unverified", "works": True, "probability": 0.01},
    "202 on a track": {"operation": "balances.track", "kind": "unverified", "works": True, "probability": 0.05},
}


@dataclass
class Result:
    """One run, done."""

    settlement: str
    database: str
    calls: list[Call]
    books: Books
    faults: Counter[str]
    seconds: float


@dataclass
class Outage:
    """When the outbox's database was away."""

    intervals: list[tuple[float, float]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def caused(self, away: Callable[[float], Awaitable[None]], chance: random.Random) -> AsyncIterator[None]:
        """Have the database be away again and again; at the end it is back."""
        over = asyncio.Event()
        task = asyncio.create_task(self._cause(away, chance, over))
        try:
            yield
        finally:
            over.set()
            await task

    async def _cause(
        self, away: Callable[[float], Awaitable[None]], chance: random.Random, over: asyncio.Event
    ) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), chance.uniform(0.5, 2))
                return
            began = time.time()
            await away(chance.uniform(0.5, 3.0))
            self.intervals.append((began, time.time()))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(module: str, *arguments: object) -> Any:
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "ignore"}
    started = subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)], env=environment)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(timeout=20)
        except subprocess.TimeoutExpired:
            started.kill()
            raise


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        await asyncio.sleep(0.2)


async def lock_file(path: Path, seconds: float) -> None:
    """Keep every other process from writing to the database."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("BEGIN EXCLUSIVE")
            await asyncio.sleep(seconds)
    finally:
        connection.close()


async def stop_server(server: Postgres, seconds: float) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)


class Watched:
    """The outbox's tables, read from outside."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url)

    async def read(self) -> tuple[Counter[str], int]:
        """Rows by state, and how many workers are known."""
        async with self._engine.connect() as connection:
            counted = await connection.execute(sa.select(rows.c.state, sa.func.count()).group_by(rows.c.state))
            known = await connection.execute(sa.select(sa.func.count()).select_from(workers))
            return Counter(dict(map(tuple, counted))), known.scalar_one()

    async def close(self) -> None:
        await self._engine.dispose()

    async def is_drained(self) -> bool:
        try:
            counted, known = await self.read()
        except (sa.exc.DBAPIError, OSError):
            return False
        return not counted["open"] and not counted["due"] and known == WORKERS


async def run(settlement: str, database: str, *, calls: int, seed: int, server: Postgres | None) -> Result:
    """Make `calls` calls through a service in one settlement mode, its outbox on one database."""
    folder = Path(tempfile.mkdtemp(prefix="autumn-chaos-"))
    chance = random.Random(seed)
    if server is None:
        path = folder / "outbox.db"
        url, away = f"sqlite+aiosqlite:///{path}", lambda seconds: lock_file(path, seconds)
    else:
        url = await server.create(f"chaos-{folder.name}")
        away = lambda seconds: stop_server(server, seconds)  # noqa: E731 - beside its counterpart
    autumn_port, port = free_port(), free_port()
    autumn_url = f"http://127.0.0.1:{autumn_port}"
    headers = {"authorization": f"Bearer {EMULATOR_KEY}", "x-api-version": "2.3.0"}
    arguments = (folder, port, WORKERS, autumn_url, url, settlement)
    began = time.monotonic()
    with process("chaos.autumn_process", folder, autumn_port) as autumn_process:
        async with httpx.AsyncClient(base_url=autumn_url, headers=headers, timeout=10) as autumn:
            await until(lambda: answers(autumn), seconds=30, what="Autumn does not start")
            with process("chaos.service_process", *arguments) as service_process:
                await until(lambda: listens(port), seconds=30, what="the service does not start")
                for fault in FAULTS.values():
                    await insistently(autumn, "POST", "/emulator/faults", fault | {"times": PLENTY})
                outage = Outage()
                async with outage.caused(away, chance):
                    made = await make_calls(port, calls, chance)
                service_process.send_signal(signal.SIGUSR1)
                autumn_process.send_signal(signal.SIGUSR1)
                faults = await insistently(autumn, "GET", "/emulator/faults")
                await insistently(autumn, "DELETE", "/emulator/faults")
                watched = Watched(url)
                with contextlib.suppress(TimeoutError):
                    await until(watched.is_drained, seconds=DRAIN_SECONDS, what="the outbox does not drain")
            left, _ = await watched.read()
            await watched.close()
            # Holds of killed workers run out.
            await insistently(autumn, "POST", "/emulator/clock", {"seconds": HOLD_TTL + 60})
            kills = [(int(pid), float(at)) for pid, at in reported(folder, KILLS)]
            books = await audit(
                autumn, made, left=left.total(), died_soon_after=lambda call: died(call, kills, outage.intervals)
            )
    counted = Counter({name: PLENTY - active["left"] for name, active in zip(FAULTS, faults["active"], strict=True)})
    counted.update(word.replace("_", " ") for word, _ in reported(folder, COUNTS))
    counted.update({"killed": len(kills), "database away": len(outage.intervals)})
    counted.update(Counter(f"handler or client: {call.how}" for call in made if call.how != "ok"))
    if books.balance:
        shutil.rmtree(folder)
    return Result(settlement, database, made, books, counted, time.monotonic() - began)


def died(call: Call, kills: list[tuple[int, float]], outages: list[tuple[float, float]]) -> bool:
    """Whether the call's worker was killed before it can have written down that the call had succeeded."""
    for pid, killed_at in kills:
        if pid != call.worker or killed_at < call.ended_at - KILL_GRACE_SECONDS:
            continue
        written_by = call.ended_at + KILL_GRACE_SECONDS
        for began, ended in sorted(outages):
            if began - KILL_GRACE_SECONDS <= written_by and call.ended_at <= ended + KILL_GRACE_SECONDS:
                written_by = max(written_by, ended + 2 * KILL_GRACE_SECONDS)
        if killed_at <= written_by:
            return True
    return False


async def make_calls(port: int, number: int, chance: random.Random) -> list[Call]:
    calls = [Call.at_random(index, CUSTOMERS, chance) for index in range(number)]
    waiting = iter(calls)

    async def customer() -> None:
        for call in waiting:
            await call.make(port)
            if call.status == 503:
                # As Retry-After asks; or else the calls would be used up while Autumn is away.
                await asyncio.sleep(1)

    await asyncio.gather(*(customer() for _ in range(AT_ONCE)))
    return calls


async def answers(autumn: httpx.AsyncClient) -> bool:
    try:
        return (await autumn.get("/emulator/health")).is_success
    except httpx.TransportError:
        return False


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def insistently(autumn: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """Ask until there is an answer; Autumn may be in one of its pauses."""
    while True:
        try:
            response = await autumn.request(method, path, json=body)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
        else:
            return response.raise_for_status().json()


def table(results: list[Result]) -> str:
    columns: dict[str, Callable[[Result], Any]] = {
        "settlement": lambda result: result.settlement,
        "outbox": lambda result: result.database,
        "calls": lambda result: len(result.calls),
        "customers": lambda result: len({call.customer for call in result.calls}),
        "kept": lambda result: result.books.kept,
        "given back": lambda result: result.books.given_back,
        "after a kill": lambda result: result.books.given_back_after_a_kill,
        "credits used": lambda result: result.books.used,
        "drift": lambda result: result.books.drift,
        "off": lambda result: result.books.wrong_amounts + result.books.unbalanced_customers,
        "failed, paid": lambda result: result.books.failed_and_paid,
        "served, unpaid": lambda result: result.books.served_and_unpaid,
        "twice": lambda result: result.books.delivered_twice,
        "left": lambda result: result.books.left_in_the_outbox,
        "seconds": lambda result: round(result.seconds),
    }
    lines = [list(columns), *([str(show(result)) for show in columns.values()] for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


async def run_all(calls: int, seed: int) -> list[Result]:
    results = []
    server = Postgres()
    try:
        for database in ("sqlite", "postgresql"):
            for settlement in ("deduct", "hold"):
                used = server if database == "postgresql" else None
                results.append(await run(settlement, database, calls=calls, seed=seed, server=used))
                print(table(results[-1:]), flush=True)
                for example in results[-1].books.examples[:10]:
                    print("  ", example, flush=True)
    finally:
        server.remove()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=7500, help="of each of the four runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least", type=int, default=50, help="how often each fault must have happened in all")
    options = parser.parse_args()
    results = asyncio.run(run_all(options.calls, options.seed))
    faults = sum((result.faults for result in results), Counter())
    print("\n" + table(results) + "\n")
    for name, count in sorted(faults.items()):
        print(f"{count:8}  {name}")
    if not all(result.books.balance for result in results):
        sys.exit("the books do not balance")
    rare = [name for name, count in faults.items() if count < options.least and name not in RARE]
    if rare:
        sys.exit(f"proves too little, these happened less than {options.least} times: {', '.join(rare)}")


RARE = {"taken for dead", "stopped unwritten"}
"""What is not a fault but what follows from some."""


if __name__ == "__main__":
    main()
