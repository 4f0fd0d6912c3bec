"""What a process takes from the machine it runs on: two clocks, chance and new ids.

They are passed in and never reached for, so that a test decides what time it is, whether two clocks agree, and which
ids come next. `asyncio.sleep` and `loop.time()` are not here: the event loop is already passed in by whoever runs it.
"""

import functools
import random
import sys
import time
import uuid
from collections.abc import Callable
from typing import Protocol

__all__ = ["MACHINE", "Machine"]


class Machine(Protocol):
    """Two clocks, chance and new ids."""

    def wall_ms(self) -> int:
        """Return the time of day in milliseconds since 1970. It may be wrong, and it may jump."""
        ...

    def steady(self) -> float:
        """Return seconds of a clock that only runs forward and means nothing outside of this process.

        The time for which the machine slept counts, where the system can tell: others did not sleep.
        """
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number between the two, to keep pauses of many processes apart."""
        ...

    def new_id(self) -> str:
        """Return sixteen characters, hexadecimal, that nobody was given before."""
        ...


# `time.monotonic` stands still on Linux and macOS while a machine sleeps, and goes on with it as if nothing had been.
# Linux has a clock of its own for that; on macOS this one goes on, and on Windows `time.monotonic` does.
_steady: Callable[[], float]
if sys.platform == "linux":
    _steady = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
elif sys.platform == "darwin":
    _steady = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
else:
    _steady = time.monotonic


class _ThisMachine:
    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady(self) -> float:
        return _steady()

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: S311 - spreads load, protects nothing

    def new_id(self) -> str:
        return uuid.uuid4().hex[:16]


MACHINE: Machine = _ThisMachine()
"""The one that the package runs on by default."""
