"""How fast an outbox is worked off that has rows waiting, as after an outage of Autumn. Prints rows per second."""

import argparse
import contextlib
import json
import sqlite3
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import uvloop
from sqlalchemy.engine import make_url

from bench.services import PRICES, settings_for
from fastapi_autumn import Autumn
from fastapi_autumn.settlement.entry import Doubt, Entry

_AN_HOUR_MS = 3_600_000


async def _drain(name: str, *, rows: int, upstream: str, directory: Path) -> dict[str, float]:
    settings = settings_for(name, upstream=upstream, directory=directory).model_copy(update={"shutdown_timeout": 3600})
    async with Autumn(settings, prices=PRICES).running() as runtime:
        outbox = runtime.outbox
        for number in range(rows):
            refund = Entry(
                charge_id=outbox.new_charge_id(),
                customer_id=f"customer-{number % 1000}",
                feature_id="ai_usage",
                credits=Decimal(5),
                cost=Decimal(0),
                taken=Decimal(5),
                key_number=1,
                doubt=Doubt.NONE,
                reason="failed",
                created_at=outbox.now(),
                due_at=outbox.now() + _AN_HOUR_MS,
            )
            outbox.open(refund)
            outbox.end(refund, owed=True)
        await outbox.flush()
    with contextlib.closing(sqlite3.connect(make_url(settings.outbox_url).database)) as database:
        database.execute("UPDATE autumn_charges SET due_at = due_at - ?", (_AN_HOUR_MS,))
        database.commit()
        started = time.perf_counter()
        async with Autumn(settings, prices=PRICES).running():
            pass  # leaving delivers all that waits
        seconds = time.perf_counter() - started
        (left,) = database.execute("SELECT count(*) FROM autumn_charges").fetchone()
    if left:
        raise RuntimeError(f"{left} rows are left")
    return {"rows": rows, "seconds": seconds, "rows_per_second": rows / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        drain = _drain(options.name, rows=options.rows, upstream=options.upstream, directory=Path(directory))
        print(json.dumps(uvloop.run(drain)))


if __name__ == "__main__":
    main()
