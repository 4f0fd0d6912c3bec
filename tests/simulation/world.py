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

__all__ = ["World"]

EPOCH_MS = 1_800_000_000_000
"""When every world begins, in milliseconds since 1970."""


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
        self.story: list[tuple[float, str, str]] = []
        self.happened: Counter[str] = Counter()
        self.errors: list[str] = []
        self.keep_alive: list[Any] = []
        self.pending = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._key = f"{seed}|".encode()
        self._count = 0
        self._turn: Any = None
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

    def note(self, who: str, what: str) -> None:
        """Add a line to the story, and to the digest by which two runs are compared."""
        self.story.append((self.now, who, what))
        self._digest.update(f"{self.now:.6f}|{who}|{what}\n".encode())

    def digest(self) -> str:
        """Return what is the same for two runs exactly if their stories are the same."""
        return self._digest.hexdigest()

    # Time.

    def at(self, delay: float, do: Callable[..., None], *args: Any) -> None:
        """Do something later that belongs to no process: a packet arrives, a fault begins."""
        self._count += 1
        self.pending += 1
        heapq.heappush(self.heap, (self.now + delay, self._count, None, (do, args)))

    def later(self, at: float, loop: Any, handle: Any) -> None:
        """Hand a timer to a process when its time has come."""
        self._count += 1
        heapq.heappush(self.heap, (at, self._count, loop, handle))

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
        ready, heap, enter = self.ready, self.heap, events._set_running_loop
        entered = None
        try:
            while True:
                if not ready:
                    if entered is not None:
                        entered = None
                        enter(None)
                    if not heap or heap[0][0] > until:
                        self.now = max(self.now, until)
                        return
                    when = heap[0][0]
                    if when > self.now:
                        if done is not None and done():
                            return
                        self.now = when
                    while heap and heap[0][0] <= self.now:
                        _, _, loop, handle = heapq.heappop(heap)
                        if loop is None:
                            self.pending -= 1
                            handle[0](*handle[1])
                        elif not handle._cancelled:
                            loop.admit(handle)
                    continue
                if len(ready) == 1:
                    loop = self._turn = ready[0]
                elif self._turn in ready:
                    # One process until it has nothing ready; which one is next is a draw.
                    loop = self._turn
                else:
                    self._turns += 1
                    loop = self._turn = ready[int(self.unit("turn", self._turns) * len(ready))]
                handle = loop.queue.popleft()
                if not loop.queue:
                    ready.remove(loop)
                if loop.dead or handle._cancelled:
                    continue
                if loop.frozen:
                    loop.held.append(handle)
                    continue
                self.steps += 1
                if entered is not loop:
                    entered = loop
                    enter(loop)
                handle._run()
        finally:
            enter(None)
