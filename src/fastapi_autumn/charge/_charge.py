"""What the application holds while a paid call runs."""

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal

from fastapi_autumn import telemetry
from fastapi_autumn._exact import exact
from fastapi_autumn.models import Balance, Customer
from fastapi_autumn.pricing import rounded_up
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Entry, Outcome, Verdict, by_default
from fastapi_autumn.settlement.replies import PaidCharge

__all__ = ["Charge"]


class Charge:
    """One paid call.

    Attributes:
        id: Unique; every event that Autumn records for this charge carries it as the property `charge_id`.
        customer: Who pays.
        model: The model that was priced. Call this one, not what the request said.
        credits: What was taken, in units of `feature_id`; 0 when billing was bypassed.
        cost: What the call costs as far as it is decided: `credits`, or what was settled instead.
        balance: What the customer had left afterwards, or None when Autumn could not say.
        verified: False when Autumn could not be asked and the service chose to serve all the same.

    A charge ends in exactly one way. Left alone, it follows the request: kept when it succeeds, given back when it
    fails. `refund`, `keep` and `settle` decide it by hand; the first of them counts and returns True, later ones change
    nothing and return False. They may be called from any thread.
    """

    __slots__ = (
        "_closed",
        "_end",
        "_entry",
        "_lock",
        "_loop",
        "_paid",
        "_settings",
        "balance",
        "cost",
        "credits",
        "customer",
        "feature_id",
        "id",
        "model",
        "verified",
    )

    def __init__(
        self,
        entry: Entry,
        *,
        customer: Customer,
        model: str,
        balance: Balance | None = None,
        verified: bool = True,
        settings: AutumnSettings,
        end: Callable[[Entry], None],
        earlier: PaidCharge | None = None,
    ) -> None:
        self._end = end
        self._settings = settings
        self._closed = False
        self._entry = entry
        self._loop = asyncio.get_running_loop()
        # Decides which of two threads closes the charge. The event loop never waits for it longer than for a flag.
        self._lock = threading.Lock()
        self.id = entry.charge_id
        self.customer = customer
        self.model = model
        self.feature_id = entry.feature_id
        self.credits = self.cost = entry.credits
        self.balance = balance
        self.verified = verified
        # What an earlier attempt under the caller's key came to. Whoever hung up half-way and comes again is served for
        # that; if the whole answer costs more, `entry` is the difference.
        self._paid: Decimal | None = None
        if earlier is not None:
            self.id, self.credits = earlier.charge_id, earlier.credits
            self.cost = self._paid = earlier.cost

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Charge {self.id} {state}: {self.credits} credits of {self.customer.id} for {self.model}>"

    @property
    def closed(self) -> bool:
        """Whether the outcome is decided."""
        return self._closed

    def refund(self, reason: str = "refunded by the application") -> bool:
        """Give all credits back, for a failure that HTTP does not show, such as an error event in a stream."""
        return self._close(Verdict(Decimal(0), reason))

    def keep(self) -> bool:
        """Keep the credits whatever happens from here on: the customer has got what they paid for."""
        return self._close(Verdict(self.credits, "kept by the application"))

    def settle(self, credits: Decimal | float | str) -> bool:  # noqa: A002 - Autumn's own word
        """Charge `credits` instead, once the real cost is known; 0 is a refund.

        The amount is rounded up at ten decimal places, so any quotient will do. Above what was taken, Autumn takes the
        rest as far as the balance goes.

        Raises:
            AmountError: Negative, not finite, not a number, or absurdly large.
        """
        return self._close(Verdict(rounded_up(credits), "settled by the application"))

    def cost_after(self, outcome: Outcome) -> Decimal:
        """Return what the call costs in credits if it ends in `outcome`."""
        if self._closed or self._paid is not None:
            return self.cost
        return self._by_default(outcome).credits

    def finish(self, outcome: Outcome) -> None:
        """Close the charge the way the call ended, unless it is closed already."""
        self._close(self._by_default(outcome))

    def _by_default(self, outcome: Outcome) -> Verdict:
        return by_default(outcome, self._settings, charged=self.credits)

    def _close(self, verdict: Verdict) -> bool:
        with self._lock:
            if self._closed or (self._paid is not None and verdict.credits <= self._paid):
                return False
            self._closed = True
            self.cost = verdict.credits
        # A call that was not billed counts, too, and leaves nothing to do.
        telemetry.charges.add(1, {"outcome": _kind(verdict, self.credits)})
        if self.credits:
            with exact():
                ended = self._entry._replace(cost=verdict.credits - (self._paid or 0), reason=verdict.reason)
            if _is_running(self._loop):
                self._end(ended)
            else:
                # What wakes the outbox up belongs to the event loop. A `def` handler runs in a thread of its own.
                self._loop.call_soon_threadsafe(self._end, ended)
        return True


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _kind(verdict: Verdict, charged: Decimal) -> str:
    if verdict.credits == charged:
        return "kept"
    return "settled" if verdict.credits else "refunded"
