"""The door for code that is not async: Celery tasks, scripts, threads.

One event loop in a thread of its own does for the process what it does for a service: charges wait in the same outbox,
and what has to be told to Autumn is told from there. A process that was forked has a loop of its own.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar, Unpack

from fastapi_autumn._doors import ChargeOptions, Doors
from fastapi_autumn.charge import Budget, Charge, Failed, Step
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.models import Customer
from fastapi_autumn.settlement import Outcome

__all__ = ["SyncDoors"]

Result = TypeVar("Result")


class SyncDoors:
    """What `Autumn` does for those who cannot await.

    The first use starts what is needed, and it ends when the process does. `close` ends it before, where a process ends
    without its exit handlers, as Celery's do: call it in `worker_process_shutdown`. What is not delivered by then is
    delivered by whoever uses the same outbox next.
    """

    def __init__(self, autumn: Doors) -> None:
        self._autumn = autumn
        self._starting = threading.Lock()
        self._background: _Background | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    @contextmanager
    def charge(self, customer: Customer | str, model: str, **options: Unpack[ChargeOptions]) -> Iterator[Charge]:
        """Charge for what happens inside; an exception gives the credits back. See `Autumn.charge` for the rest.

        Raises:
            ConfigurationError: Also in a thread that has an event loop, which this would hold up.
        """
        charge = self._run(self._autumn.open(customer, model, **options))
        with _ending(charge):
            yield charge

    @contextmanager
    def budget(
        self,
        customer: Customer | str,
        credits: Decimal | float | str,  # noqa: A002 - Autumn's own word
        *,
        name: str = "budget",
        failed: Failed = "used",
        **options: Any,
    ) -> Iterator[Budget]:
        """Hold `credits` for many model calls, each of which is a `step`. See `Autumn.budget` for the rest."""
        budget = self._run(self._autumn.open_budget(customer, credits, name=name, failed=failed, **options))
        with _ending(budget):
            yield budget

    @contextmanager
    def step(self, budget: Budget, model: str, **options: Any) -> Iterator[Step]:
        """Take what a call of `model` can cost from a budget. See `Budget.step` for the rest."""
        step = self._run(budget.open_step(model, **options))
        with _ending(step):
            yield step

    def settled(self) -> None:
        """Wait until Autumn has been told everything that is due; see `Autumn.settled`."""
        self._run(self._autumn.settled())

    def close(self) -> None:
        """Deliver what is due, as far as that is possible within `AUTUMN_SHUTDOWN_TIMEOUT`, and end the event loop.

        Doing it twice does no harm, and the next use starts anew.
        """
        with self._starting:
            background, self._background = self._background, None
        if background is not None:
            atexit.unregister(self.close)
            background.stop()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            _refuse_to_hold_up_an_event_loop()
            background = self._started()
        except BaseException:
            work.close()
            raise
        return background.run(work)

    def _started(self) -> "_Background":
        with self._starting:
            if self._background is None:
                self._background = _Background(self._autumn)
                atexit.register(self.close)
            return self._background

    def _after_fork(self) -> None:
        # The thread was not forked, and its lock may be held for ever. What it was at work on is its own process's.
        self._starting = threading.Lock()
        self._background = None


class _Background:
    """An event loop in a thread, in which Autumn runs."""

    def __init__(self, autumn: Doors) -> None:
        self._autumn = autumn
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="autumn-sync", daemon=True)
        self._thread.start()
        self._loop = self._ready.result()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while Autumn is asked: the charge ends in doubt, and what was taken comes back.
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        async with self._autumn.running():
            self._ready.set_result(asyncio.get_running_loop())
            await self._stop.wait()


def _refuse_to_hold_up_an_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "autumn.sync would hold up the event loop of this thread: use `async with autumn.charge(...)`."
    )


@contextmanager
def _ending(what: Charge | Step) -> Iterator[None]:
    try:
        yield
    except BaseException:
        what.finish(Outcome.FAILED)
        raise
    what.finish(Outcome.DONE)
