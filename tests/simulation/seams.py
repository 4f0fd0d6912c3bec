"""Where the package is given its machine and its database."""

import contextvars
import types
import uuid
from typing import Any

from anyio._backends import _asyncio as anyio_asyncio
from fastapi_autumn import Autumn
from fastapi_autumn.client import _calls
from fastapi_autumn.emulator import _customer
from fastapi_autumn.settlement import _tables, outbox, sender

from simulation.loop import WorldMachine, current
from simulation.world import World

__all__ = ["at_rest", "enter", "leftovers", "make_autumn", "use_database"]

_MACHINE = WorldMachine()
_world: Any = None
_database: Any = None
_emulator_ids = 0


async def _in_a_thread(
    _cls: Any, function: Any, args: Any, abandon_on_cancel: bool = False, limiter: Any = None  # noqa: FBT001, FBT002
) -> Any:
    context = contextvars.copy_context()
    return await current().run_in_executor(None, context.run, function, *args)


def make_autumn(settings: Any, prices: Any, transport: Any) -> Autumn:
    return Autumn(settings, prices=prices, transport=transport)


def use_database(database: Any) -> None:
    global _database
    _database = database


def enter(world: World) -> None:
    """Have the package run in this world."""
    global _world, _emulator_ids
    _world, _emulator_ids = world, 0
    time = types.SimpleNamespace(
        monotonic=_MACHINE.steady, time_ns=lambda: _MACHINE.wall_ms() * 1_000_000, time=lambda: _MACHINE.wall_ms() / 1000
    )
    outbox.time = time
    outbox.uuid = types.SimpleNamespace(uuid4=lambda: types.SimpleNamespace(hex=_MACHINE.new_id()))
    sender.random = _calls.random = types.SimpleNamespace(uniform=_MACHINE.uniform)
    _customer.uuid = types.SimpleNamespace(uuid4=_emulator_id)
    anyio_asyncio.AsyncIOBackend.run_sync_in_worker_thread = classmethod(_in_a_thread)
    _tables.create_async_engine = _engine


def poll_every(seconds: float) -> None:
    """Say how often the sender looks for what others left, or what became due by itself."""
    sender._POLL_SECONDS = seconds


def _emulator_id() -> Any:
    global _emulator_ids
    _emulator_ids += 1
    return uuid.UUID(int=_emulator_ids)


_real_engine = _tables.create_async_engine


def _engine(url: Any, **options: Any) -> Any:
    database = _database
    return _real_engine(url, connect_args={"async_creator_fn": database.connect}, **options)


def at_rest(database: Any, alive: int) -> bool:
    """Whether the outbox has nothing to do: no row, and only workers that live."""
    if database.rows("SELECT 1 FROM autumn_outbox WHERE state != 'parked' LIMIT 1"):
        return False
    return len(database.rows("SELECT id FROM autumn_workers")) <= alive


def leftovers(database: Any) -> list[str]:
    rows = database.rows("SELECT state, action, last_error FROM autumn_outbox")
    return [f"a row {state}, to {action} ({error})" for state, action, error in rows]
