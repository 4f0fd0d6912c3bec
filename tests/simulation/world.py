"""One world: virtual time, one heap of what is to come, chance by name, and a story of what happened.

Nothing in here sleeps, opens a socket or starts a thread. Chance is keyed: a draw depends on the seed and on what it
is for, never on how many draws came before, so that taking one fault out of a plan leaves everything else as it was.
"""

import hashlib
import heapq
from asyncio import events
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["Note", "World", "current"]

Note = tuple[float, str, str | Callable[..., str], tuple[Any, ...]]
"""A line of a story: when, who, and what happened, or what says so if it is asked about something."""

EPOCH_MS = 1_800_000_000_000
"""When every world begins, in milliseconds since 1970."""


_running: Any = None


def current() -> Any:
    """Return the process that runs at the moment, in its event loop or in a thread of its own."""
    return _running


class World:
    """Time, chance and story of one scenario.

    Args:
        seed: Decides every draw.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.steps = 0
        self.heap: list[Any] = []
        self.ready: list[Any] = []
        self.notes: list[Note] = []
        self.happened: Counter[str] = Counter()
        self.errors: list[str] = []
        self.keep_alive: list[Any] = []
        self.pending = 0
        self._key = f"{seed}|".encode()
        self._count = 0
        self._turns = 0
        self._moments: dict[tuple[Any, ...], list[Callable[[], None]]] = {}

    # Chance.

    def unit(self, *what: Any) -> float:
        """Return a number from 0 up to 1 that depends on the seed and on `what` alone."""
        name = "|".join(map(str, what)).encode()
        return int.from_bytes(hashlib.blake2b(self._key + name, digest_size=7).digest(), "big") / 2**56

    def uniform(self, low: float, high: float, *what: Any) -> float:
        """Return a number between the two."""
        return low + (high - low) * self.unit(*what)

    # Story.

    def note(self, who: str, what: str | Callable[..., str], *about: Any) -> None:
        """Add a line to the story: a text, or what makes one of `about` should anybody want to read it."""
        self.notes.append((self.now, who, what, about))

    # Time.

    def at(self, delay: float, do: Callable[..., None], *args: Any) -> None:
        """Do something later that belongs to no process: a packet arrives, a fault begins."""
        self._count += 1
        self.pending += 1
        heapq.heappush(self.heap, (self.now + delay, self._count, None, (do, args)))

    def later(self, delay: float, loop: Any, handle: Any) -> None:
        """Hand a timer to a process when its time has come."""
        self._count += 1
        heapq.heappush(self.heap, (self.now + delay, self._count, loop, handle))

    def on(self, moment: tuple[Any, ...], do: Callable[[], None]) -> None:
        """Do something the first time that `moment` comes."""
        self._moments.setdefault(moment, []).append(do)

    def moment(self, *moment: Any) -> None:
        """Say that something happened for which a fault may be waiting."""
        if self._moments:
            for do in self._moments.pop(moment, ()):
                do()

    def run(self, until: float, *, done: Callable[[], bool] | None = None) -> None:
        """Let time pass, at most up to `until`; `done` is asked whenever the time moves on."""
        global _running
        ready, heap, pop = self.ready, self.heap, heapq.heappop
        try:
            while True:
                if ready:
                    self._run_ready()
                    continue
                if _running is not None:
                    _running = None
                    events._set_running_loop(None)
                if not heap or heap[0][0] > until:
                    self.now = max(self.now, until)
                    return
                now = heap[0][0]
                if now > self.now:
                    if done is not None and done():
                        return
                    self.now = now
                while heap and heap[0][0] <= now:
                    _, _, loop, what = pop(heap)
                    if loop is None:
                        self.pending -= 1
                        what[0](*what[1])
                    elif not what.is_cancelled:
                        loop.admit(what)
        finally:
            _running = None
            events._set_running_loop(None)

    def _run_ready(self) -> None:
        """Let one process run until it has nothing ready. Which one is a draw."""
        global _running
        ready, place = self.ready, 0
        if len(ready) > 1:
            self._turns += 1
            place = int(self.unit("turn", self._turns) * len(ready))
        loop = ready[place]
        queue = loop.queue
        if _running is not loop:
            _running = loop
            events._set_running_loop(loop)
        while queue:
            handle = queue.popleft()
            if handle.is_cancelled:
                continue
            self.steps += 1
            try:
                handle.context.run(handle.callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as in asyncio
                loop.call_exception_handler({"message": f"in {handle.callback!r}", "exception": error})
        if loop.is_ready:
            loop.is_ready = False
            ready.remove(loop)
