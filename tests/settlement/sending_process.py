"""One machine of two: a worker that delivers from a shared outbox into a file, or gets stuck with what it has claimed.

python -m settlement.sending_process URL FILE LEASE (deliver | get-stuck)
"""

import asyncio
import os
import sys
from collections.abc import Sequence

from fastapi_autumn.settlement.entry import Entry
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.rescue import Rescuer
from fastapi_autumn.settlement.sender import Result, Sender
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.store import WorkerRow
from settlement.entries import SANDBOX, an_entry


async def work(url: str, file: str, lease: str, how: str) -> None:
    """Deliver until killed: one line for each entry."""
    outbox = Outbox(SqlStore(url, SANDBOX), lease=float(lease))
    await outbox.start()
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def deliver(entry: Entry) -> Result:
        os.write(descriptor, f"{entry.charge_id} {entry.doubt.value}\n".encode())
        if how == "get-stuck":
            await asyncio.sleep(3600)
        return Result(entry, None)

    async def find_unwritten(worker: WorkerRow) -> Sequence[Entry]:
        return []

    Sender(outbox, deliver).start()
    if how == "get-stuck":
        outbox.open(an_entry("left-open"))
    else:
        Rescuer(outbox, find_unwritten, silence=float(lease) * 2).start()
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
