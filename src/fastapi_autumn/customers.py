"""Customers that exist: creation once per customer at a time, and off the critical path once this process has seen one.

A check never creates a customer, so somebody has to. Confirming one costs a round trip; for a customer that was
confirmed before, it runs beside the request instead of before it.
"""

import asyncio
import logging
import re
from collections import OrderedDict

from .client import AutumnClient, Confirmation
from .errors import AutumnError, Overloaded
from .models import Customer, CustomerRecord

__all__ = ["MAX_CUSTOMER_ID", "KnownCustomers", "is_customer_id"]

_log = logging.getLogger("fastapi_autumn")

MAX_CUSTOMER_ID = 255
_REMEMBERED = 100_000
_AT_ONCE = 512
_SECONDS_BETWEEN_WARNINGS = 1.0
# Autumn refuses spaces and slashes; control characters and surrogates do not survive its stores.
_CUSTOMER_ID = re.compile(r"[^\s/\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


def is_customer_id(value: object) -> bool:
    """Tell whether Autumn would take `value` as a customer id and mean just this customer.

    An empty id is not merely refused: a check with it answers for whatever customer has none.
    """
    return isinstance(value, str) and len(value) <= MAX_CUSTOMER_ID and _CUSTOMER_ID.fullmatch(value) is not None


class KnownCustomers:
    """Creates and confirms customers.

    Args:
        client: The way to Autumn.
        ttl: Seconds for which a confirmation is not repeated; 0 repeats it on every request.
    """

    def __init__(self, client: AutumnClient, *, ttl: float) -> None:
        self._client = client
        self._ttl = ttl
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._limited: set[str] = set()
        self._under_way: dict[str, asyncio.Task[Confirmation]] = {}
        self._quiet_until = 0.0

    def has_seen(self, customer: Customer) -> bool:
        """Whether this process knows that the customer exists."""
        return customer.id in self._seen

    def has_usage_limit(self, customer: Customer) -> bool:
        """Whether Autumn limits this customer's use of a feature, as of their last confirmation."""
        return customer.id in self._limited

    def ensure(self, customer: Customer) -> "asyncio.Task[Confirmation] | None":
        """Begin to create or confirm the customer; callers for one customer share one call.

        Returns None when a confirmation is recent enough. The task's failure is logged, so it need not be awaited.
        """
        task = self._under_way.get(customer.id)
        if task is not None:
            return task
        seen_at = self._seen.get(customer.id)
        if seen_at is not None and self._ttl and asyncio.get_running_loop().time() - seen_at < self._ttl:
            return None
        return self._start(customer)

    async def exists(self, customer: Customer) -> None:
        """Make sure that the customer exists: wait for a new one, confirm a known one beside the request.

        Where confirmations cannot keep up, a request waits for its own, known customer or not. So there are never more
        of them than requests, and none is left out.
        """
        known = self.has_seen(customer)
        task = self.ensure(customer)
        if task is None:
            return
        if not known:
            await asyncio.shield(task)
        elif len(self._under_way) > _AT_ONCE:
            await asyncio.wait([task])

    async def record(self, customer: Customer) -> CustomerRecord:
        """Return the customer as Autumn has them now, created if need be."""
        # What is under way was sent a moment ago; only what was answered before is too old.
        task = self._under_way.get(customer.id) or self._start(customer)
        return (await asyncio.shield(task)).record()

    async def drain(self) -> None:
        """Wait until everybody who is to be confirmed is."""
        while self._under_way:
            # Not `gather`: with tasks that are already done it does not yield on Python 3.12 and later, so that
            # `_finish` never runs and this loop never ends.
            await asyncio.wait(self._under_way.values())

    def _start(self, customer: Customer) -> asyncio.Task[Confirmation]:
        task = asyncio.create_task(self._client.customers.confirm(customer), name="autumn-customer")
        self._under_way[customer.id] = task
        task.add_done_callback(lambda done: self._finish(customer.id, done))
        return task

    def _remember(self, customer_id: str, *, has_usage_limit: bool) -> None:
        if has_usage_limit:
            self._limited.add(customer_id)
        else:
            self._limited.discard(customer_id)
        self._seen[customer_id] = asyncio.get_running_loop().time()
        self._seen.move_to_end(customer_id)
        if len(self._seen) > _REMEMBERED:
            self._limited.discard(self._seen.popitem(last=False)[0])

    def _finish(self, customer_id: str, task: asyncio.Task[Confirmation]) -> None:
        del self._under_way[customer_id]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._remember(customer_id, has_usage_limit=task.result().has_usage_limit)
        elif isinstance(error, AutumnError):
            self._warn(error)
        else:
            # A bug, and where the customer is known nobody awaits the task that would raise it.
            _log.error("a customer could not be confirmed", exc_info=error)

    def _warn(self, error: AutumnError) -> None:
        now = asyncio.get_running_loop().time()
        # While Autumn is down every request has the same to say.
        level = logging.DEBUG if isinstance(error, Overloaded) and now < self._quiet_until else logging.WARNING
        if level == logging.WARNING:
            self._quiet_until = now + _SECONDS_BETWEEN_WARNINGS
        _log.log(level, "a customer could not be confirmed: %s", error)

    def forget(self, customer: Customer) -> None:
        """Take the customer for unknown, because Autumn said so."""
        self._seen.pop(customer.id, None)
        self._limited.discard(customer.id)
