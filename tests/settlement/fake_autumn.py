"""As much of Autumn as the rule depends on: keys, a log that lags behind, holds, and work that ends badly.

Time is counted in units. Whatever was begun is visible in the log after `DELAY` of them, as the rule presumes.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Literal

__all__ = ["CREDITS", "DELAY", "LAG", "LONGEST_COPY", "LONGEST_RUN", "FakeAutumn", "Fate"]

CREDITS = Decimal(5)
LAG, LONGEST_RUN, LONGEST_COPY = 3, 3, 2
DELAY = LAG + LONGEST_RUN + LONGEST_COPY + 1
_TIME_OUT = 2

Answer = Literal["yes", "no", "in use", "not claimable", "unknown"]


@dataclass(frozen=True)
class Fate:
    """What happens to one request. By default it is done at once, and answered."""

    answered: bool = True
    late: int = 0
    """When it arrives, if nobody waits for its answer."""
    run: int = 0
    """How long the work takes."""
    end: Literal["well", "fails before", "fails after", "dies before", "dies after"] = "well"
    """A failure frees the key, as Autumn does, also after the work; one that dies keeps it."""
    copied: int | None = None
    """A proxy sends it once more, so much later."""
    lag: int = 0
    """How far the log is behind with what it does."""


@dataclass
class FakeAutumn:
    """One customer with one charge."""

    now: int = 0
    keys: set[str] = field(default_factory=set)
    log: list[tuple[Decimal, int]] = field(default_factory=list)
    held: bool = False
    lock_is_spoiled: bool = False
    expires_at: int | None = None
    _agenda: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    @property
    def net(self) -> Decimal:
        """What the charge has come to, whether the log shows it yet or not."""
        return sum((value for value, _ in self.log), Decimal(0))

    @property
    def shown(self) -> Decimal:
        """What the log shows."""
        return sum((value for value, visible_at in self.log if visible_at <= self.now), Decimal(0))

    def at(self, when: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), do))

    def pass_to(self, when: float) -> None:
        """Let time pass, with all that happens meanwhile."""
        while self._agenda and self._agenda[0][0] <= when:
            at, _, do = heapq.heappop(self._agenda)
            self.now = max(self.now, at)
            do()
        if when != float("inf"):
            self.now = max(self.now, int(when))

    def ask(self, work: Callable[[Fate], Answer], key: str, fate: Fate) -> Answer:
        """Send a request, and wait for its answer, or until the time is up."""
        answers: list[Answer] = []
        arrival = self.now + (0 if fate.answered else fate.late)
        self._arrive(arrival, work, key, fate, answers)
        if fate.copied is not None:
            self._arrive(arrival + fate.copied, work, key, fate, answers)
        if not fate.answered:
            self.pass_to(self.now + _TIME_OUT)
            return "unknown"
        self.pass_to(self.now + fate.run + (fate.copied or 0) + fate.run)
        # Behind a proxy that repeats, it is the last one's.
        return answers[-1]

    def _arrive(self, when: int, work: Callable[[Fate], Answer], key: str, fate: Fate, answers: list[Answer]) -> None:
        def begin() -> None:
            if key in self.keys:
                answers.append("in use")
            else:
                self.keys.add(key)
                self.at(self.now + fate.run, end)

        def end() -> None:
            answer = work(fate) if fate.end in {"well", "fails after", "dies after"} else "unknown"
            if fate.end.startswith("fails") or answer == "no":
                self.keys.discard(key)
            answers.append(answer if fate.end == "well" else "unknown")

        self.at(when, begin)

    # Kinds of work.

    def nothing(self, _: Fate) -> Answer:
        return "yes"

    def use(self, value: Decimal) -> Callable[[Fate], Answer]:
        def work(fate: Fate) -> Answer:
            self.log.append((value, self.now + fate.lag))
            return "yes"

        return work

    def hold(self, expires_at: int) -> Callable[[Fate], Answer]:
        def work(fate: Fate) -> Answer:
            if self.held:
                return "in use"
            self.held = True
            self.log.append((CREDITS, self.now + fate.lag))
            if not self.lock_is_spoiled:
                self.at(max(self.now, expires_at), self._expire)
            return "yes"

        return work

    def _expire(self) -> None:
        if self.held:
            self.held = False
            self.log.append((-CREDITS, self.now + LAG))

    def finalize(self, value: Decimal) -> Callable[[Fate], Answer]:
        def work(fate: Fate) -> Answer:
            if not self.held:
                self.lock_is_spoiled = True
                return "no"
            if self.lock_is_spoiled:
                return "not claimable"
            self.held = False
            if value != CREDITS:
                self.log.append((value - CREDITS, self.now + fate.lag))
            return "yes"

        return work
