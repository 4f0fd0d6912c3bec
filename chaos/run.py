"""Thousands of calls through everything that can go wrong, and then the books.

    PYTHONPATH=tests python -m chaos.run --calls 7500
    PYTHONPATH=tests python -m chaos.run pauses --only deduct-sqlite

Runs both ways of charging on both databases, one after the other, prints a table, and fails if anything is off.
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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from chaos.between import AUDIT, ODD
from chaos.books import Books, audit
from chaos.client import Call
from chaos.moments import Moments
from chaos.settings import COUNTS, HOLD_TTL, LATE_MS, LEASE, SILENCE, reported
from fastapi_autumn.emulator import EMULATOR_KEY
from fastapi_autumn.settlement._tables import charges as rows
from fastapi_autumn.settlement._tables import workers
from postgres import Postgres

CUSTOMERS = 200
WORKERS = 3
AT_ONCE = 16
PLENTY = 1_000_000
DRAIN_SECONDS = 900
REST_SECONDS = 2.0
ROOT = Path(__file__).resolve().parents[1]

FAULTS: dict[str, dict[str, Any]] = {
    "500": {"operation": "*", "kind": "fail", "status": 500, "probability": 0.006},
    "429": {"operation": "*", "kind": "fail", "status": 429, "probability": 0.006},
    "reset": {"operation": "*", "kind": "reset", "probability": 0.006},
    "drop after the work": {"operation": "*", "kind": "drop", "probability": 0.006},
    "late": {"operation": "*", "kind": "delay", "delay_ms": 200, "probability": 0.01},
    "later than the time-out": {"operation": "*", "kind": "late", "delay_ms": LATE_MS, "probability": 0.006},
    "202 without work": {"operation": "balances.check", "kind": "unverified", "probability": 0.006},
    "202 with work": {"operation": "balances.check", "kind": "unverified", "works": True, "probability": 0.006},
    "202 on a track, without work": {"operation": "balances.track", "kind": "unverified", "probability": 0.03},
    "202 on a track, with work": {
        "operation": "balances.track", "kind": "unverified", "works": True, "probability": 0.03,
    },
    "key claimed, work done late": {"operation": "*", "kind": "slow", "delay_ms": LATE_MS, "probability": 0.004},
    "key claimed, then freed by a late failure": {
        "operation": "*", "kind": "stall", "status": 500, "delay_ms": LATE_MS, "probability": 0.006,
    },
    "key claimed for good, without work": {"operation": "*", "kind": "crash", "delay_ms": 100, "probability": 0.004},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Act:
    """Something done to a worker, or to the database."""

    share: float
    """How often, compared with the others."""
    worker: str | None = None
    """What is done to a worker, and how that ends, as in an order to the supervisor."""
    seconds: tuple[float, float] = (0.0, 0.0)
    outage: tuple[float, float] | None = None
    """How long the database is away for everybody."""


ACTS = {
    "kill": Act(20, "nothing kill"),
    "stop": Act(8, "nothing stop"),
    "pause, short": Act(4, "pause live", (0.5, LEASE)),
    "pause, longer than the lease": Act(8, "pause live", (LEASE + 0.3, SILENCE)),
    "pause, until it is taken for dead": Act(8, "pause live", (SILENCE + 3, SILENCE + 6)),
    "pause, then kill": Act(4, "pause kill", (1.0, SILENCE + 4)),
    "cut off": Act(8, "cut live", (0.5, SILENCE)),
    "cut off, until it is taken for dead": Act(8, "cut live", (SILENCE + 3, SILENCE + 6)),
    "cut off, then kill": Act(6, "cut kill", (1.0, SILENCE + 6)),
    "cut off, and stop meanwhile": Act(6, "cut stopping", (1.0, 4.0)),
    "database away": Act(12, outage=(0.5, 3.0)),
    "database away, and stop meanwhile": Act(8, "nothing stop", outage=(4.0, 4.0)),
}
PAUSES = {"pause": Act(1, "pause live", (LEASE + 0.3, SILENCE + 6))}
LOCKED_STOPS = {"database locked for 4 s, and stop meanwhile": Act(1, "nothing stop", outage=(4.0, 4.0))}


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    charging: str
    database: str
    calls: int
    seed: int = 1
    acts: Mapping[str, Act] = field(default_factory=lambda: ACTS)
    gap_seconds: tuple[float, float] = (0.3, 1.5)
    """Between two acts."""
    faulty: bool = True
    """Whether Autumn fails too, and what stands before it."""
    handler_ms: int = 20


@dataclass
class Result:
    """One run, done."""

    plan: Plan
    calls: list[Call]
    books: Books
    faults: Counter[str]
    seconds: float


class Director:
    """Does to the workers and the database what a plan says, one after the other."""

    def __init__(
        self,
        plan: Plan,
        chance: random.Random,
        *,
        order: Callable[[str], None],
        away: Callable[[float], Awaitable[None]],
    ) -> None:
        self.outages: list[tuple[float, float]] = []
        self.done: Counter[str] = Counter(dict.fromkeys(plan.acts, 0))
        self._plan = plan
        self._chance = chance
        self._order = order
        self._away = away

    @contextlib.asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """Act until the block ends; then the database is back, and no more orders are given."""
        over = asyncio.Event()
        task = asyncio.create_task(self._act(over))
        try:
            yield
        finally:
            over.set()
            await task

    async def _act(self, over: asyncio.Event) -> None:
        names = list(self._plan.acts)
        shares = [act.share for act in self._plan.acts.values()]
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(*self._plan.gap_seconds)):
                    await over.wait()
                    return
            name = self._chance.choices(names, shares)[0]
            self.done[name] += 1
            await self._do(self._plan.acts[name])

    async def _do(self, act: Act) -> None:
        if act.outage is None:
            self._tell(act)
            return
        began = time.time()
        outage = asyncio.create_task(self._away(self._chance.uniform(*act.outage)))
        if act.worker:
            await asyncio.sleep(0.3)
            self._tell(act)
        await outage
        self.outages.append((began, time.time()))
        # Or else outages in a row are one, which may be longer than a stop can wait.
        await asyncio.sleep(REST_SECONDS)

    def _tell(self, act: Act) -> None:
        assert act.worker is not None
        what, then = act.worker.split()
        self._order(f"{what} {self._chance.uniform(*act.seconds):.2f} {then}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(module: str, *arguments: object) -> Any:
    path = ":".join(map(str, (ROOT / "src", ROOT, ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    started = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(timeout=60)
        except subprocess.TimeoutExpired:
            started.kill()
            raise
        finally:
            started.stdin.close()


def talk_to(port: int) -> httpx.AsyncClient:
    """Return a client that asks Autumn past whatever stands before it."""
    headers = {"authorization": f"Bearer {EMULATOR_KEY}", "x-api-version": "2.3.0"} | AUDIT
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10)


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

    async def rows(self) -> list[str]:
        """Every charge in it, as text."""
        async with self._engine.connect() as connection:
            return [str(row._asdict()) for row in await connection.execute(sa.select(rows))]

    async def close(self) -> None:
        await self._engine.dispose()

    async def is_drained(self) -> bool:
        try:
            counted, known = await self.read()
        except (sa.exc.DBAPIError, OSError):
            return False
        return not counted["open"] and not counted["due"] and known == WORKERS


async def run(plan: Plan, server: Postgres | None) -> Result:
    """Make calls through a service to which everything happens that the plan says, and audit the books."""
    folder = Path(tempfile.mkdtemp(prefix="autumn-chaos-"))
    chance = random.Random(plan.seed)
    if server is None:
        path = folder / "outbox.db"
        url, away = f"sqlite+aiosqlite:///{path}", lambda seconds: lock_file(path, seconds)
    else:
        url = await server.create(f"chaos-{folder.name}")
        away = lambda seconds: stop_server(server, seconds)  # noqa: E731 - beside its counterpart
    autumn_port, port = free_port(), free_port()
    autumn_url = f"http://127.0.0.1:{autumn_port}"
    arguments = (folder, port, WORKERS, autumn_url, url, plan.charging, plan.handler_ms, int(plan.faulty))
    began = time.monotonic()
    with process("chaos.autumn_process", folder, autumn_port, int(not plan.faulty)) as autumn_process:
        async with talk_to(autumn_port) as autumn:
            await until(lambda: answers(autumn), seconds=30, what="Autumn does not start")
            with process("chaos.service_process", *arguments) as service_process:
                await until(lambda: listens(port), seconds=30, what="the service does not start")
                watched = Watched(url)
                await until(watched.is_drained, seconds=60, what="the workers do not start")
                faults = FAULTS if plan.faulty else {}
                for fault in faults.values():
                    await insistently(autumn, "POST", "/emulator/faults", fault | {"times": PLENTY})

                def order(line: str) -> None:
                    # Raises if the supervisor is gone.
                    service_process.stdin.write(f"{line}\n".encode())
                    service_process.stdin.flush()

                director = Director(plan, chance, order=order, away=away)
                async with director.acting():
                    made = await make_calls(port, plan.calls, chance)
                autumn_process.send_signal(signal.SIGUSR1)
                active = (await insistently(autumn, "GET", "/emulator/faults"))["active"]
                await insistently(autumn, "DELETE", "/emulator/faults")
                with contextlib.suppress(TimeoutError):
                    await until(watched.is_drained, seconds=DRAIN_SECONDS, what="the outbox does not drain")
            left = await watched.rows()
            await watched.close()
            # Holds of killed workers run out.
            await insistently(autumn, "POST", "/emulator/clock", {"seconds": HOLD_TTL + 60})
            moments = Moments.of(folder, director.outages)
            books = await audit(autumn, made, left=len(left), moments=moments)
    counted = Counter({name: PLENTY - fault["left"] for name, fault in zip(faults, active, strict=True)})
    counted.update(word.replace("_", " ") for word, _ in reported(folder, COUNTS))
    counted.update(director.done)
    counted["seconds in which the database was away"] = round(sum(ended - began for began, ended in director.outages))
    counted["held, because cut off"] += books.held if plan.charging == "deduct" else 0
    counted.update(Counter(f"handler or client: {call.how}" for call in made if call.how != "ok"))
    if books.balance:
        shutil.rmtree(folder)
    else:
        (folder / "outages").write_text("\n".join(f"{began:.3f} {ended:.3f}" for began, ended in director.outages))
        books.examples = [f"everything is in {folder}", *books.examples, *(f"left: {row}" for row in left)]
    return Result(plan, made, books, counted, time.monotonic() - began)


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


def table(results: Sequence[Result]) -> str:
    columns: dict[str, Callable[[Result], Any]] = {
        "charging": lambda result: result.plan.charging,
        "outbox": lambda result: result.plan.database,
        "calls": lambda result: len(result.calls),
        "customers": lambda result: len({call.customer for call in result.calls}),
        "kept": lambda result: result.books.kept,
        "given back": lambda result: result.books.given_back,
        "credits used": lambda result: result.books.used,
        "drift": lambda result: result.books.drift,
        "off": lambda result: result.books.wrong_amounts + result.books.unbalanced_customers,
        "failed, paid": lambda result: result.books.failed_and_paid,
        "served, unpaid": lambda result: result.books.served_and_unpaid,
        "twice": lambda result: result.books.delivered_twice,
        "left": lambda result: result.books.left_in_the_outbox,
        "free after a kill": lambda result: result.books.free_after_a_kill,
        "unwritten for": lambda result: f"{result.books.longest_wait:.2f} s",
        "and then killed": lambda result: f"{result.books.longest_wait_before_a_kill:.2f} s",
        "longest stop": lambda result: f"{result.books.longest_stop:.1f} s",
        "took": lambda result: f"{result.seconds:.0f} s",
    }
    lines = [list(columns), *([str(show(result)) for show in columns.values()] for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


async def run_all(plans: Sequence[Plan]) -> list[Result]:
    results = []
    server = Postgres() if any(plan.database == "postgresql" for plan in plans) else None
    try:
        for plan in plans:
            results.append(await run(plan, server if plan.database == "postgresql" else None))
            print(table(results[-1:]), flush=True)
            for example in results[-1].books.examples[:10]:
                print("  ", example, flush=True)
    finally:
        if server is not None:
            server.remove()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["everything", "pauses", "locked-stops"], default="everything")
    parser.add_argument("--calls", type=int, help="of each run; default: 7500, or 2000 for one fault alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least", type=int, default=20, help="how often each fault must have happened in all")
    parser.add_argument("--only", help="one column, such as deduct-sqlite")
    options = parser.parse_args()
    columns = [(charging, database) for database in ("sqlite", "postgresql") for charging in ("deduct", "hold")]
    if options.only:
        columns = [tuple(options.only.split("-"))]
    base = Plan("", "", options.calls or (7500 if options.what == "everything" else 2000), options.seed)
    if options.what == "pauses":
        base = replace(base, acts=PAUSES, faulty=False, handler_ms=100, gap_seconds=(2, 5))
    elif options.what == "locked-stops":
        base = replace(base, acts=LOCKED_STOPS, faulty=False, gap_seconds=(1, 2))
    results = asyncio.run(run_all([replace(base, charging=charging, database=name) for charging, name in columns]))
    faults = sum((result.faults for result in results), Counter())
    print("\n" + table(results) + "\n")
    for name, count in sorted(faults.items()):
        print(f"{count:8}  {name}")
    if not all(result.books.balance for result in results):
        sys.exit("the books do not balance")
    seen = {*FAULTS, *base.acts, *ODD} if base.faulty else base.acts
    rare = [name for name in seen if faults[name] < options.least]
    if options.what == "everything" and rare:
        sys.exit(f"proves too little, these happened less than {options.least} times: {', '.join(rare)}")


if __name__ == "__main__":
    main()
