"""How long a worker of a whole service has to be silent before its charges are settled."""

from contextlib import AsyncExitStack

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.settlement.sql import SqlStore
from fastapi_autumn.settlement.store import Opened
from settlement.entries import FakeMachine, a_batch, an_entry, until


async def test_a_silence_covers_the_lease_a_call_and_the_log(tmp_path):
    """A deduction may begin at the end of a lease, take a whole time-out, and be in the log a delay later."""
    url = f"sqlite+aiosqlite:///{tmp_path}/outbox.db"
    settings = AutumnSettings(
        _env_file=None,
        emulator=True,
        emulator_path=tmp_path / "emulator.db",
        outbox_url=url,
        outbox_lease=0.5,
        timeout=0.5,
        event_delay=0.5,
    )
    machine = FakeMachine()
    autumn = Autumn(settings, prices={"small": 1}, machine=machine)
    rounds = 0
    async with AsyncExitStack() as stack, autumn.running() as runtime:
        outbox = runtime.outbox
        workers = outbox.store.workers

        async def counted():
            nonlocal rounds
            rounds += 1
            return await workers()

        outbox.store.workers = counted
        others = SqlStore(url, outbox.store.account)
        await others.open()
        stack.push_async_callback(others.close)
        await others.commit(a_batch("silent", Opened(an_entry()), seen_at=outbox.now()))

        async def looked_round():
            # The second one from now on has begun after now.
            enough = rounds + 2
            await until(lambda: rounds >= enough)

        async def pass_by(seconds):
            machine.advance(seconds=seconds)
            beat = outbox._beat + 2
            await until(lambda: outbox._beat >= beat and not outbox._committing)
            await looked_round()

        await looked_round()
        for _ in range(3):
            await pass_by(0.4)
        # More than any two of the three, and less than all of them.
        assert "silent" in {worker.id for worker in await others.workers()}
        await pass_by(0.4)

        async def is_forgotten():
            return "silent" not in {worker.id for worker in await others.workers()}

        await until(is_forgotten)
