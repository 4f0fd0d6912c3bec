"""One machine of two: a worker that delivers from a shared outbox into a file, or gets stuck with what it has claimed.

python -m settlement.sending_process URL FILE LEASE (deliver | get-stuck)
"""

import asyncio
import os
import sys

from fastapi_autumn.settlement import Entry
from fastapi_autumn.settlement.outbox import LostWorker, Outbox
from fastapi_autumn.settlement.sender import Sender
from settlement.entries import a_charge


async def work(url: str, file: str, lease: str, how: str) -> None:
    """Deliver until killed: one line for each entry."""
    outbox = Outbox(url, lease=float(lease))
    await outbox.start()
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def send(entry: Entry) -> None:
        os.write(descriptor, f"{entry.charge_id} {entry.action.value}\n".encode())
        if how == "get-stuck":
            await asyncio.sleep(3600)

    async def recover(worker: LostWorker) -> list[Entry]:
        return []

    Sender(outbox, send, recover=recover, delay=0.5).start()
    if how == "get-stuck":
        outbox.open(a_charge(outbox, charge_id="left-open"))
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
