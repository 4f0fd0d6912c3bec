"""Where the package is given its machine, its database and its network: through what it is handed, and nothing else."""

import contextvars
from typing import Any

from anyio._backends import _asyncio as anyio_asyncio

from fastapi_autumn import Autumn
from fastapi_autumn.settlement import outbox, rescue, sender
from fastapi_autumn.settlement.sql import SqlStore
from simulation.loop import WorldMachine, current
from simulation.memory import SimulatedReplies, SimulatedStore
from simulation.network import CALL, SimulatedTransport

__all__ = ["EmulatorMachine", "SimulatedAutumn", "enter", "leave", "poll_every", "slow_down"]


class SimulatedAutumn(Autumn):
    """`Autumn` whose database is that of the world."""

    database: Any = None

    def __init__(self, settings: Any, **given: Any) -> None:
        super().__init__(settings, machine=WorldMachine(), **given)

    def _make_store(self) -> Any:
        database, settings = self.database, self.settings
        if not database.is_sql:
            return SimulatedStore(database, self._account(), current())
        return SqlStore(
            settings.outbox_url,
            self._account(),
            recreate_after=settings.outbox_lease,
            machine=self._machine,
            connect_args={"async_creator_fn": database.connect},
        )

    def _make_replies(self, store: Any) -> Any:
        return super()._make_replies(store) if self.database.is_sql else SimulatedReplies(store, self._machine)


class EmulatorMachine:
    """The machine of Autumn's own server: the world's time, and ids in order."""

    def __init__(self, world: Any, epoch_ms: int) -> None:
        self._world = world
        self._epoch_ms = epoch_ms
        self._ids = 0

    def wall_ms(self) -> int:
        return self._epoch_ms + int(self._world.now * 1000)

    def steady(self) -> float:
        return self._world.now

    def uniform(self, low: float, high: float) -> float:
        self._ids += 1
        return self._world.uniform(low, high, "emulator", self._ids)

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:016x}"


async def _in_a_thread(
    _cls: Any,
    function: Any,
    args: Any,
    abandon_on_cancel: bool = False,
    limiter: Any = None,
) -> Any:
    context = contextvars.copy_context()
    return await current().run_in_executor(None, context.run, function, *args)


_senders: list[Any] = []
_poll_seconds = 1.0
_start = sender.Sender.start
_new_charge_id = outbox.Outbox.new_charge_id
_run_sync_in_worker_thread = vars(anyio_asyncio.AsyncIOBackend)["run_sync_in_worker_thread"]
_often = (outbox._BEATS_PER_LEASE, rescue._ROUNDS_PER_LEASE)


def _start_and_remember(self: Any) -> None:
    self._poll_seconds = _poll_seconds
    _senders.append(self)
    _start(self)


def _new_charge_id_of_a_call(self: Any) -> str:
    # A call may come to more than one charge: what its handler says too late is one of its own.
    charge = _new_charge_id(self)
    SimulatedTransport.network.call_of_charge.setdefault(charge, CALL.get())
    return charge


def enter() -> None:
    """Have nothing of the package start a thread, or look for work more often than it is told."""
    _senders.clear()
    sender.Sender.start = _start_and_remember
    outbox.Outbox.new_charge_id = _new_charge_id_of_a_call
    anyio_asyncio.AsyncIOBackend.run_sync_in_worker_thread = classmethod(_in_a_thread)


def leave() -> None:
    """Give the package back what it had, or whatever else runs in this process polls and threads as a scenario does."""
    sender.Sender.start = _start
    outbox.Outbox.new_charge_id = _new_charge_id
    outbox._BEATS_PER_LEASE, rescue._ROUNDS_PER_LEASE = _often
    anyio_asyncio.AsyncIOBackend.run_sync_in_worker_thread = _run_sync_in_worker_thread


def poll_every(seconds: float) -> None:
    """Say how often the senders look for what others left, or what became due by itself."""
    global _poll_seconds
    _poll_seconds = seconds
    for one in _senders:
        one._poll_seconds = seconds


def slow_down() -> None:
    """Have the workers look round and show life less often, but still often enough: nothing happens any more."""
    poll_every(15.0)
    outbox._BEATS_PER_LEASE, rescue._ROUNDS_PER_LEASE = 2.5, 1.5  # type: ignore[assignment]
