"""Protection of both sides from too many calls: a limit with a bounded queue, and a circuit breaker.

Both hold a call back before anything is sent, so what they raise is always safe to repeat.
"""

import asyncio
from collections import Counter, deque

from fastapi_autumn.errors import ConnectFailed, NoAnswer, Overloaded, ServerFailure

__all__ = ["Breaker", "Limiter"]


class Limiter:
    """Lets a limited number of calls through at once; the others queue, and the queue is bounded too.

    No customer has more than `share` of the calls, so that one whose calls are slow does not hold up the others.

    Args:
        limit: Calls at the same time.
        waiting: Calls that may queue; one more is refused.
        patience: Seconds that a call queues before it is refused.
    """

    def __init__(self, limit: int, *, waiting: int, patience: float) -> None:
        self._limit = limit
        self._share = max(1, limit // 4)
        self._most_waiting = waiting
        self._patience = patience
        self._in_flight = 0
        self._of_customer: Counter[str] = Counter()
        self._queue: deque[tuple[str, asyncio.Future[None]]] = deque()

    async def acquire(self, operation: str, customer: str) -> None:
        """Take a slot, to be given back with `release`; `customer` is empty for calls that are nobody's.

        Raises:
            Overloaded: The queue is full, or waiting took too long.
        """
        if self._is_free_for(customer):
            self._take(customer)
        else:
            await self._wait(operation, customer)

    def release(self, customer: str) -> None:
        """Give a slot back, to the first in the queue who may have it."""
        self._in_flight -= 1
        self._of_customer[customer] -= 1
        if not self._of_customer[customer]:
            del self._of_customer[customer]
        for place, (waiting, turn) in enumerate(self._queue):
            # A waiter that was cancelled a moment ago stands in the queue until it runs again.
            if not turn.done() and self._is_free_for(waiting):
                del self._queue[place]
                # The slot is taken here and not by the one who wakes up, or a newcomer would slip in between.
                self._take(waiting)
                turn.set_result(None)
                return

    def _is_free_for(self, customer: str) -> bool:
        return self._in_flight < self._limit and (not customer or self._of_customer[customer] < self._share)

    def _take(self, customer: str) -> None:
        self._in_flight += 1
        self._of_customer[customer] += 1

    async def _wait(self, operation: str, customer: str) -> None:
        if len(self._queue) >= self._most_waiting:
            raise Overloaded(operation, "too many calls to Autumn are waiting", retry_after=1)
        turn = asyncio.get_running_loop().create_future()
        place = (customer, turn)
        self._queue.append(place)
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release(customer)
            else:
                self._queue.remove(place)
            if isinstance(error, TimeoutError):
                raise Overloaded(operation, "a call to Autumn waited too long for its turn", retry_after=1) from None
            raise


class Breaker:
    """Stops calling an Autumn that is down, and lets one call through from time to time to find out.

    Args:
        failures: How many calls in a row have to fail before it opens.
        first_pause: Seconds before the first probe; doubles with each that fails.
        longest_pause: Where the doubling ends.
    """

    def __init__(self, *, failures: int = 10, first_pause: float = 1.0, longest_pause: float = 15.0) -> None:
        self._failures = failures
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._failed = 0
        self._pause = 0.0
        self._probe_at = 0.0

    def before(self, operation: str) -> None:
        """Let a call through.

        Raises:
            Overloaded: Autumn is taken to be down, and it is not yet time to look again.
        """
        if self._failed < self._failures:
            return
        now = asyncio.get_running_loop().time()
        if now < self._probe_at:
            raise Overloaded(operation, "Autumn is down", retry_after=self._probe_at - now)
        # This call is the probe; the next one is due only if this one fails, or never ends.
        self._probe_at = now + self._pause

    def after(self, error: BaseException | None) -> None:
        """Learn from how a call ended. Any answer of Autumn's own shows that it is up, a refusal too."""
        if not isinstance(error, ConnectFailed | NoAnswer | ServerFailure):
            self._failed = 0
            self._pause = 0.0
            return
        self._failed += 1
        if self._failed >= self._failures:
            self._pause = min(self._longest_pause, self._pause * 2 or self._first_pause)
            self._probe_at = asyncio.get_running_loop().time() + self._pause
