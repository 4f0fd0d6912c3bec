"""Thousands of charges of one busy customer that have to be looked up, and what the others notice of it.

    PYTHONPATH=tests python -m chaos.lookups --lookups 10000 --events 50000

Nobody knows what became of the busy customer's charges. The log shows half of them, so they are given back, and not the
other half. Meanwhile calls of others fail, and it is measured when they have their credits back.
"""

import argparse
import asyncio
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

from chaos.client import Call
from chaos.run import PLENTY, Watched, answers, free_port, process, talk_to, until
from chaos.seams import WatchedAutumn
from chaos.service_process import settings_of
from chaos.settings import CATALOG, PRICES
from fastapi_autumn.emulator import Emulator
from fastapi_autumn.settlement.entry import Doubt, Entry
from fastapi_autumn.settlement.store import Batch, Ended

BUSY = "busy"
WORKERS = 2
OTHERS_SECONDS = 2.0
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def charge_id(number: int) -> str:
    return f"0123456789abcdef-{number}"


def fill_autumn(folder: Path, *, lookups: int, events: int) -> None:
    """Make the customer's events of the last month; those of the charges come in the last half hour."""
    today = time.time_ns() // 1_000_000
    now = today - 30 * DAY_MS
    emulator = Emulator(folder / "autumn.db", catalog=CATALOG, clock=lambda: now)
    emulator.call("customers.get_or_create", {"customer_id": BUSY})
    shown = lookups // 2
    charges = [*(f"old-{number}" for number in range(events - shown)), *map(charge_id, range(shown))]
    for number, charge in enumerate(charges):
        left = events - number
        now = (
            today - 2 * MINUTE_MS - (left * 28 * MINUTE_MS // shown if left <= shown else left * 29 * DAY_MS // events)
        )
        properties = {"charge_id": charge, "model": "small", "charging": "deduct"}
        body = {"customer_id": BUSY, "feature_id": "ai_usage", "value": 1, "properties": properties}
        emulator.call("balances.track", body)
    emulator.close()


async def fill_outbox(autumn: WatchedAutumn, *, lookups: int) -> None:
    """Write down what nobody knows: keys that are sealed, of checks whose answers were lost."""
    store = autumn.new_store()
    await store.open()
    now = time.time_ns() // 1_000_000
    entries = [
        Entry(
            charge_id=charge_id(number),
            customer_id=BUSY,
            feature_id="ai_usage",
            credits=Decimal(PRICES["small"]),
            cost=Decimal(0),
            reason="no answer to the check",
            created_at=now - 2 * MINUTE_MS,
            doubt=Doubt.SEALED,
            due_at=now,
        )
        for number in range(lookups)
    ]
    changes = {entry.charge_id: Ended(entry, owed=True) for entry in entries}
    await store.commit(Batch("filler", beat=1, confirmed=0, complete_to=0, seen_at=now, changes=changes))
    await store.leave("filler")
    await store.close()


async def refund_seconds(port: int, folder: Path, number: int) -> float | None:
    """Have a call of another customer fail; returns how long it took until the credits were back."""
    call = Call(PLENTY + number, f"other-{number}", "small", "raises", streams=False)
    await call.make(port)
    if call.status != 500:
        return None
    database = sqlite3.connect(f"file:{folder / 'autumn.db'}?mode=ro", uri=True)
    query = "SELECT count(*) FROM events JOIN customers c ON c.seq = customer WHERE c.id = ?"
    try:
        while database.execute(query, (call.customer,)).fetchone()[0] < 2:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
    finally:
        database.close()
    return time.time() - call.ended_at


async def measure(lookups: int, events: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="autumn-lookups-"))
    fill_autumn(folder, lookups=lookups, events=events)
    autumn_port, port = free_port(), free_port()
    autumn_url, outbox_url = f"http://127.0.0.1:{autumn_port}", f"sqlite+aiosqlite:///{folder / 'outbox.db'}"
    await fill_outbox(WatchedAutumn(settings_of(autumn_url, outbox_url, "deduct"), prices=PRICES), lookups=lookups)
    print(f"{lookups} look-ups of a customer with {events} events, {WORKERS} workers", flush=True)
    refunds: list[float] = []
    with process("chaos.autumn_process", folder, autumn_port, 1):
        async with talk_to(autumn_port) as autumn:
            await until(lambda: answers(autumn), seconds=30, what="Autumn does not start")
            with process(
                "chaos.service_process", folder, port, WORKERS, autumn_url, outbox_url, "deduct", 20, 0
            ) as service:
                watched = Watched(outbox_url)
                began = time.monotonic()
                told_at = began
                number = 0
                while (counted := await watched.read())[0].total():
                    number += 1
                    took = await refund_seconds(port, folder, number)
                    refunds += [] if took is None else [took]
                    if time.monotonic() - told_at > 20:
                        told_at = time.monotonic()
                        print(
                            f"{told_at - began:6.0f} s  {dict(counted[0])}, others' refunds after {took} s", flush=True
                        )
                    await asyncio.sleep(0.5)
                took = time.monotonic() - began
                await watched.close()
                service.send_signal(signal.SIGTERM)
                await asyncio.to_thread(service.wait)
            busy = await autumn.post("/v1/customers.get_or_create", json={"customer_id": BUSY})
    used = Decimal(str(busy.json()["balances"]["ai_usage"]["usage"]))
    longest, middle = max(refunds), statistics.median(refunds)
    print(
        f"all done after {took:.0f} s; {used} credits used, {events - lookups // 2} are right; "
        f"{len(refunds)} refunds of others took {middle:.2f} s in the middle and {longest:.2f} s at the longest"
    )
    return int(used != events - lookups // 2 or middle > OTHERS_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lookups", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=50_000)
    options = parser.parse_args()
    sys.exit(asyncio.run(measure(options.lookups, options.events)))
