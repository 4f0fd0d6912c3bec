"""The event loop of one process: virtual time, first in first out, and faults that a real one only has by accident.

A killed process runs nothing any more, no `finally` either. A paused one keeps what comes in, and goes on with it.
"""

import asyncio
import contextvars
from asyncio import events, futures, tasks
from collections import deque
from collections.abc import Callable
from typing import Any

from simulation.world import EPOCH_MS, World, current

__all__ = ["ProcessLoop", "WorldMachine", "current", "first_iteration", "forget_generators", "last_reference"]

_GRAIN = 1e-4


_thread_of: Any = None


_generators: dict[int, Any] = {}


def first_iteration(generator: Any) -> None:
    """Remember whose asynchronous generator it is."""
    _generators[id(generator)] = current()


def last_reference(generator: Any) -> None:
    """Have its process close an asynchronous generator that nobody refers to any more, as asyncio does."""
    loop = _generators.pop(id(generator), None)
    if loop is not None and not loop.dead:
        loop.call_soon_threadsafe(loop.create_task, generator.aclose())


def forget_generators() -> None:
    """Forget those that ended: nobody says so of them."""
    _generators.clear()


class _Handle:
    """A callback that waits for its turn. It is what asyncio asks of one, and less to make than asyncio's own."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "when_due")

    def __init__(self, callback: Any, args: Any, context: Any, when_due: float = 0.0) -> None:
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False
        self.when_due = when_due

    def cancel(self) -> None:
        self.is_cancelled = True
        # As asyncio does: what nobody will run keeps nothing alive.
        self.callback = self.args = None

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_due


class ProcessLoop(asyncio.AbstractEventLoop):
    """One process.

    Args:
        world: Where it runs.
        name: What the story calls it.
        wall_offset: Seconds by which its wall clock is ahead.
        rate: How many of its seconds pass in one of the world's.
    """

    def __init__(self, world: World, name: str, *, wall_offset: float = 0.0, rate: float = 1.0) -> None:
        self.world = world
        self.name = name
        self.wall_offset = wall_offset
        self.rate = rate
        self.born = world.now
        self.worker = -1
        self.in_flight = 0
        self.asked_to_stop_at: float | None = None
        self.stopped_at: float | None = None
        self.committed_at = -1.0
        self.dead = False
        self.killed_at: float | None = None
        self.frozen = False
        self.pauses: list[tuple[float, float]] = []
        self.queue: deque[Any] = deque()
        self.is_ready = False
        self.held: list[Any] = []
        self.connections: list[Any] = []
        self._ids = 0
        self._tasks = 0
        self._draws = 0
        world.keep_alive.append(self)

    # Clocks, chance and ids, as `fastapi_autumn._machine.Machine` has them.

    def time(self) -> float:
        return 1000.0 + (self.world.now - self.born) * self.rate

    steady = time

    def wall_ms(self) -> int:
        return EPOCH_MS + int((self.born + (self.world.now - self.born) * self.rate + self.wall_offset) * 1000)

    def uniform(self, low: float, high: float) -> float:
        self._draws += 1
        return self.world.uniform(low, high, "uniform", self.name, self._draws)

    def new_id(self) -> str:
        self._ids += 1
        return f"{int(self.world.unit('id', self.name, self._ids) * 2**56):014x}{self._ids % 256:02x}"

    # Scheduling.

    def admit(self, handle: Any) -> None:
        """Have a handle run soon, unless the process is killed or paused."""
        if self.frozen:
            self.held.append(handle)
        elif not self.dead:
            if not self.is_ready:
                self.is_ready = True
                self.world.ready.append(self)
            self.queue.append(handle)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        if _thread_of is self:
            # A real loop may sleep on for a long time, and in debug mode it raises.
            self.world.errors.append(f"{self.name}: call_soon from a thread")
        handle = _Handle(callback, args, context)
        self.admit(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(callback, args, context)
        self.admit(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(callback, args, context, self.time() + delay)
        self.world.later(delay / self.rate if delay > 0.0 else 0.0, self, handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> Any:
        return futures.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any) -> Any:
        self._tasks += 1
        task = tasks.Task(coro, loop=self, name=name or f"{self.name}-{self._tasks}", context=context)
        task._log_destroy_pending = False
        return task

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Run a "thread": one step a little later, in which no event loop is running."""
        future = self.create_future()

        def work() -> None:
            global _thread_of
            if future.cancelled():
                return
            events._set_running_loop(None)
            _thread_of = self
            try:
                end, result = future.set_result, function(*args)
            except BaseException as error:  # noqa: BLE001 - it comes out where the thread is awaited
                end, result = future.set_exception, error
            finally:
                _thread_of = None
                events._set_running_loop(self)
            end(result)

        self.call_later(self.uniform(0.0002, 0.003), work)
        return future

    def get_task_factory(self) -> None:
        return None

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.dead

    def get_debug(self) -> bool:
        return False

    def default_exception_handler(self, context: Any) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: Any) -> None:
        if self.dead:
            return
        error = f"{context.get('message')}: {context.get('exception')!r}"
        self.world.note(self.name, f"error in the event loop: {error}")
        self.world.errors.append(f"{self.name}: {error}")

    async def shutdown_asyncgens(self) -> None:
        """Do nothing."""

    # Faults.

    def kill(self) -> None:
        """End here and now: nothing of this process runs again."""
        self.dead = True
        self.killed_at = self.world.now
        self.world.keep_alive.append((list(self.queue), self.held))
        self._give_up_turn()
        for connection in self.connections:
            connection.power_off()

    def kill_quietly(self) -> None:
        """End after everything has ended by itself."""
        if not self.dead:
            self.kill()
            self.killed_at = None

    def freeze(self) -> None:
        """Stand still, while the clocks and the rest of the world go on."""
        self.frozen = True
        self.pauses.append((self.world.now, float("inf")))
        self.held.extend(self.queue)
        self._give_up_turn()

    def _give_up_turn(self) -> None:
        self.queue.clear()
        if self.is_ready:
            self.is_ready = False
            self.world.ready.remove(self)

    def stood_still(self, since: float, until: float) -> float:
        """Return for how many seconds of a time it stood still."""
        return sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in self.pauses)

    def thaw(self) -> None:
        """Go on with all that came in meanwhile, one at a time."""
        self.frozen = False
        self.pauses[-1] = (self.pauses[-1][0], self.world.now)
        held, self.held = self.held, []
        for place, handle in enumerate(held):
            self.world.at(place * _GRAIN, self.admit, handle)


class WorldMachine:
    """The machine of whichever process is running: what the package is handed as its `Machine`."""

    def wall_ms(self) -> int:
        return current().wall_ms()

    def steady(self) -> float:
        return current().time()

    def uniform(self, low: float, high: float) -> float:
        return current().uniform(low, high)

    def new_id(self) -> str:
        return current().new_id()
