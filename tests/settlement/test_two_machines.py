"""Two machines with one PostgreSQL, as two process groups: one dies with work claimed, the other finishes it."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.sql import SqlStore
from settlement.entries import SANDBOX, a_refund, rows, until

TESTS = Path(__file__).resolve().parents[1]
LEASE = 1.5

pytestmark = pytest.mark.postgres


@contextlib.contextmanager
def machine(url: str, file: Path, how: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    arguments = [sys.executable, "-m", "settlement.sending_process", url, file, str(LEASE), how]
    process = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


async def test_the_other_finishes_it(postgres, tmp_path):
    """What a killed machine had claimed is looked up by the other one, as is a charge that it had open; each once."""
    url = await postgres.create(f"machines-{uuid.uuid4().hex}")
    outbox = Outbox(SqlStore(url, SANDBOX))
    await outbox.start()
    refunds = [a_refund(outbox) for _ in range(100)]
    for refund in refunds:
        outbox.end(refund, owed=True)
    await outbox.flush()
    stuck, delivered = tmp_path / "stuck", tmp_path / "delivered"

    with machine(url, stuck, "get-stuck") as first:
        await until(lambda: len(lines(stuck)) == 64)

        async def is_written() -> bool:
            return "left-open" in await rows(outbox.store)

        await until(is_written)
        os.killpg(first.pid, signal.SIGKILL)
    with machine(url, delivered, "deliver"):

        async def is_done() -> bool:
            return not await rows(outbox.store)

        await until(is_done)
    await outbox.stop(within=5)

    claimed = {line.split()[0] for line in lines(stuck)}
    doubts = {refund.charge_id: "unknown" if refund.charge_id in claimed else "none" for refund in refunds}
    expected = [f"{charge_id} {doubt}" for charge_id, doubt in doubts.items()] + ["left-open unknown"]
    assert sorted(lines(delivered)) == sorted(expected)
