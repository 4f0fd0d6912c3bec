"""Protection of both sides from too many calls: a limit with a fair, bounded queue, and circuit breakers.

Both hold a call back before anything is sent, so what they raise is always safe to repeat. Calls travel in lanes, by
what waits for them, and what goes wrong in one lane does not stop the others.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from functools import partial

from fastapi_autumn.errors import CircuitOpen, ConnectFailed, NoAnswer, Overloaded, ServerFailure

__all__ = ["Breaker", "Breakers", "Lane", "Limiter", "Limiters", "lane_of"]


class Lane(Enum):
    """What waits for a call."""

    CHECK = "a paid call, before it runs"
    CUSTOMER = "a request, for its customer to exist, or nobody, for one who does"
    SETTLEMENT = "nobody: refunds, look-ups"
    OTHER = "a front end, a script"

    # Each member is there once; Enum's own hash is a call in Python, and lanes are keys of every call.
    __hash__ = object.__hash__


_LANES = {
    "balances.check": Lane.CHECK,
    "customers.get_or_create": Lane.CUSTOMER,
    "balances.track": Lane.SETTLEMENT,
    "balances.finalize": Lane.SETTLEMENT,
    "events.list": Lane.SETTLEMENT,
    "events.aggregate": Lane.SETTLEMENT,
}


def lane_of(operation: str) -> Lane:
    """Return the lane in which an operation travels if nobody says otherwise."""
    return _LANES.get(operation, Lane.OTHER)


_Place = tuple[Lane, str]
_RESERVED = 16
"""A lane that is not busy keeps a sixteenth of the slots to itself."""
_SHARE = 3
"""A customer may take a slot while there are three times as many free as they have: a quarter of an idle limiter."""


class Limiter:
    """Lets a limited number of calls through at once; the others queue, and the queue is bounded too.

    The fuller it is, the less one customer may have, so there is always room for one more who has nothing yet. Slots
    that come free go to the customers who wait, in turn; where the queue is full, whoever has most in it loses a place
    to a newcomer.

    Args:
        limit: Calls at the same time.
        waiting: Calls that may queue.
        patience: Seconds that a call queues before it is refused.
    """

    def __init__(self, limit: int, *, waiting: int, patience: float) -> None:
        self._limit = limit
        self._reserve = limit // _RESERVED
        self._most_waiting = waiting
        self._patience = patience
        self._in_flight = 0
        # If each lane kept its slots and used none of them.
        self._free_at_least = limit - self._reserve * (len(Lane) - 1)
        self._of_lane: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._of_customer: dict[str, int] = {}
        self._waiting = 0
        self._queues: OrderedDict[_Place, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, operation: str, lane: Lane, customer: str) -> None:
        """Take a slot, to be given back with `release`; `customer` is empty for calls that are nobody's.

        Raises:
            Overloaded: The queue is full, or waiting took too long.
        """
        if not self.take_now(lane, customer):
            await self._wait(operation, (lane, customer))

    def take_now(self, lane: Lane, customer: str) -> bool:
        """Take a slot if one is free for this customer, as `acquire` does, without ever waiting."""
        # Nearly always there is enough even if nobody uses what is kept for them, and counting is spared.
        if self._has_share(customer, self._free_at_least) or self._has_share(customer, self._free(lane)):
            self._take(lane, customer)
            return True
        return False

    def release(self, lane: Lane, customer: str) -> None:
        """Give a slot back, to the next in turn who may have it."""
        self._in_flight -= 1
        self._free_at_least += 1
        self._of_lane[lane] -= 1
        left = self._of_customer[customer] - 1
        if left:
            self._of_customer[customer] = left
        else:
            del self._of_customer[customer]
        if self._waiting:
            self._call_in()

    def _free(self, lane: Lane) -> int:
        """Count the slots that are free and not kept for other lanes."""
        free = self._limit - self._in_flight
        if self._reserve:
            for other, taken in self._of_lane.items():
                if other is not lane and taken < self._reserve:
                    free -= self._reserve - taken
        return free

    def _has_share(self, customer: str, free: int) -> bool:
        return free > 0 and (not customer or self._of_customer.get(customer, 0) * _SHARE < free)

    def _take(self, lane: Lane, customer: str) -> None:
        self._in_flight += 1
        self._free_at_least -= 1
        self._of_lane[lane] += 1
        self._of_customer[customer] = self._of_customer.get(customer, 0) + 1

    def _call_in(self) -> None:
        free: dict[Lane, int] = {}
        for place, queue in self._queues.items():
            lane, customer = place
            if lane not in free:
                free[lane] = self._free(lane)
            if free[lane] <= 0 or not self._has_share(customer, free[lane]):
                continue
            # One that was cancelled a moment ago stands in the queue until it runs again.
            turn = next((turn for turn in queue if not turn.done()), None)
            if turn is not None:
                self._leave(place, turn)
                if place in self._queues:
                    self._queues.move_to_end(place)
                # The slot is taken here and not by the one who wakes up, or a newcomer would slip in between.
                self._take(lane, customer)
                turn.set_result(None)
                return

    async def _wait(self, operation: str, place: _Place) -> None:
        if self._waiting >= self._most_waiting and not self._push_out_for(operation, place):
            raise Overloaded(operation, "too many calls to Autumn are waiting", retry_after=1)
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(place, deque()).append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                if turn.exception() is None:
                    self.release(*place)
            else:
                self._leave(place, turn)
            if isinstance(error, TimeoutError):
                raise Overloaded(operation, "a call to Autumn waited too long for its turn", retry_after=1) from None
            raise

    def _push_out_for(self, operation: str, place: _Place) -> bool:
        """Make room in a full queue at the cost of whoever has most in it; False where that is `place` itself."""
        most, queue = max(self._queues.items(), key=lambda entry: len(entry[1]), default=(place, ()))
        if len(queue) <= len(self._queues.get(place, ())) + 1:
            return False
        turn = next((turn for turn in reversed(queue) if not turn.done()), None)
        # Without one, all of them were cancelled a moment ago and are about to leave by themselves.
        if turn is not None:
            self._leave(most, turn)
            turn.set_exception(Overloaded(operation, "too many calls to Autumn are waiting", retry_after=1))
        return True

    def _leave(self, place: _Place, turn: asyncio.Future[None]) -> None:
        queue = self._queues[place]
        queue.remove(turn)
        self._waiting -= 1
        if not queue:
            del self._queues[place]


class Breaker:
    """Stops calling an Autumn that is down, and lets one call through from time to time to find out.

    Args:
        now: Seconds of a steady clock.
        failures: How many calls in a row have to fail before it opens.
        first_pause: Seconds before the first probe; doubles with each that fails.
        longest_pause: Where the doubling ends.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        failures: int = 10,
        first_pause: float = 0.25,
        longest_pause: float = 15.0,
    ) -> None:
        self._now = now
        self._failures = failures
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._failed = 0
        self._opened = 0
        self._pause = 0.0
        self._probe_at = 0.0

    def before(self, operation: str) -> int:
        """Let a call through, and return what `after` needs to know about its beginning.

        Raises:
            CircuitOpen: Autumn is taken to be down, and it is not yet time to look again.
        """
        if not self._failed:
            return self._opened
        self.refuse(operation)
        return self.begin()

    def refuse(self, operation: str) -> None:
        """Raise `CircuitOpen` where `before` would, and leave the turn to look to whoever comes next."""
        if self.has_failed(self._failures):
            wait = self._probe_at - self._now()
            if wait > 0:
                raise CircuitOpen(operation, "Autumn is down", retry_after=wait)

    def begin(self) -> int:
        """Note that a call goes out that nothing refuses."""
        if self.has_failed(self._failures):
            # This call is the probe; the next one is due only if this one fails, or never ends.
            self._probe_at = self._now() + self._pause
        return self._opened

    def has_failed(self, times: int) -> bool:
        """Whether that many calls in a row have failed."""
        return self._failed >= times

    def after(self, began: int, error: BaseException | None) -> None:
        """Learn from how a call ended. Any answer of Autumn's own shows that it is up, a refusal too."""
        if not isinstance(error, ConnectFailed | NoAnswer | ServerFailure):
            self._failed = 0
            self._pause = 0.0
        elif began == self._opened:
            # One that began before the breaker opened tells what is known already.
            self._failed += 1
            if self._failed >= self._failures:
                self._opened += 1
                self._pause = min(self._longest_pause, self._pause * 2 or self._first_pause)
                self._probe_at = self._now() + self._pause


_Begun = tuple[int, int]
_OWN_FAILURES = 5
"""So often in a row the failures of one customer count for all; it takes two customers to shut the others out."""
_WATCHED = 1024


class Breakers:
    """A breaker for all, and one of their own for customers whose calls fail: who fails alone is held back alone."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._all = Breaker(now)
        self._own: OrderedDict[str, Breaker] = OrderedDict()

    def before(self, operation: str, customer: str) -> _Begun:
        """Let a call through, as `Breaker.before` does; `customer` is empty for calls that are nobody's."""
        own = self._own.get(customer) if self._own else None
        if own is None:
            return self._all.before(operation), 0
        self._all.refuse(operation)
        own.refuse(operation)
        return self._all.begin(), own.begin()

    def after(self, customer: str, began: _Begun, error: BaseException | None) -> None:
        """Learn from how a call ended."""
        for_all, for_own = began
        if not isinstance(error, ConnectFailed | NoAnswer | ServerFailure):
            if self._own:
                self._own.pop(customer, None)
        elif customer:
            own = self._own.setdefault(customer, Breaker(self._now))
            self._own.move_to_end(customer)
            if len(self._own) > _WATCHED:
                self._own.popitem(last=False)
            is_known = own.has_failed(_OWN_FAILURES)
            own.after(for_own, error)
            if is_known:
                return
        self._all.after(for_all, error)


class Limiters:
    """A limiter for each event loop: what waits in one cannot be called in from another, nor after its end."""

    def __init__(self, limit: int, *, waiting: int, patience: float) -> None:
        self._make = partial(Limiter, limit, waiting=waiting, patience=patience)
        self._of_loop: dict[asyncio.AbstractEventLoop, Limiter] = {}

    def here(self) -> Limiter:
        """Return the one of the running loop."""
        loop = asyncio.get_running_loop()
        limiter = self._of_loop.get(loop)
        if limiter is None:
            known = {other: its for other, its in list(self._of_loop.items()) if not other.is_closed()}
            limiter = known[loop] = self._make()
            self._of_loop = known
        return limiter
