"""Two machines with one PostgreSQL, as two process groups: one dies with work claimed, the other finishes it."""

import asyncio
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
from settlement.entries import a_refund, until, written

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
    """What a killed machine had claimed, and a charge that it had open, is settled by the other one, each once."""
    url = await postgres.create(f"machines-{uuid.uuid4().hex}")
    outbox = Outbox(url, lease=LEASE)
    await outbox.start()
    refunds = [a_refund(outbox) for _ in range(100)]
    for refund in refunds:
        outbox.put(refund)
    await outbox.flush()
    stuck, delivered = tmp_path / "stuck", tmp_path / "delivered"

    with machine(url, stuck, "get-stuck") as first:
        await until(lambda: len(lines(stuck)) == 64)
        await asyncio.sleep(0.5)
        os.killpg(first.pid, signal.SIGKILL)
    with machine(url, delivered, "deliver"):

        async def is_done() -> bool:
            return not await written(outbox)

        await until(is_done, seconds=30)
    await outbox.stop(within=5)

    expected = [f"{refund.charge_id} track" for refund in refunds] + ["left-open look_up"]
    assert sorted(lines(delivered)) == sorted(expected)
    assert set(lines(stuck)) < set(lines(delivered))
