"""How fast an outbox is worked off that has rows waiting, as after an outage of Autumn. Prints rows per second."""

import argparse
import json
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import uvloop

from bench.services import PRICES, settings_for
from fastapi_autumn import Autumn
from fastapi_autumn.settlement import Action, Entry
from fastapi_autumn.settlement.outbox import Outbox


async def _drain(name: str, *, rows: int, upstream: str, directory: Path) -> dict[str, float]:
    settings = settings_for(name, upstream=upstream, directory=directory).model_copy(update={"shutdown_timeout": 3600})
    outbox = Outbox(settings.outbox_url)
    await outbox.start()
    for number in range(rows):
        outbox.put(
            Entry(
                charge_id=outbox.new_charge_id(),
                customer_id=f"customer-{number % 1000}",
                feature_id="ai_usage",
                credits=Decimal(5),
                action=Action.TRACK,
                value=Decimal(-5),
                reason="failed",
                created_at=outbox.now(),
            )
        )
    await outbox.stop(within=600)
    started = time.perf_counter()
    async with Autumn(settings, prices=PRICES).running():
        pass  # leaving delivers all that waits
    seconds = time.perf_counter() - started
    after = Outbox(settings.outbox_url)
    await after.start()
    left = sum((await after.count()).values())
    await after.stop(within=10)
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
