"""What the application holds while a paid call runs."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from fastapi_autumn import telemetry
from fastapi_autumn._exact import exact
from fastapi_autumn.charge._metered import Failed, Metered
from fastapi_autumn.metering import Counts, Reading
from fastapi_autumn.models import Balance, Customer
from fastapi_autumn.pricing import CallRequest, Rate, rounded_up
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Entry, Outcome, Verdict, by_default
from fastapi_autumn.settlement.replies import PaidCharge

__all__ = ["Charge", "ending"]

_log = logging.getLogger("fastapi_autumn")


class Charge(Metered):
    """One paid call.

    Attributes:
        id: Unique; every event that Autumn records for this charge carries it as the property `charge_id`.
        customer: Who pays.
        model: The model that was priced. Call this one, not what the request said.
        credits: What was taken, in units of `feature_id`, or what is held; 0 when billing was bypassed.
        cost: What the call costs as far as it is decided: `credits`, or what it came to instead.
        balance: What the customer had left afterwards, or None when Autumn could not say.
        verified: False when Autumn could not be asked and the service chose to serve all the same.
        would_refuse: The code with which the call would have been refused, where `AUTUMN_MODE=observe` let it through.
        rate: What the use costs, where the price is not fixed. Such a charge is *metered*: the most that the call can
            cost is held, and it ends at what `used` was told.
        bounds: What was held for; see `Metered`.

    A charge ends in exactly one way. Left alone, it follows the request: kept when it succeeds, given back when it
    fails; a metered one ends at what was used when it succeeds, and when the caller leaves. `refund`, `keep` and
    `settle` decide it by hand; the first of them counts and returns True, later ones change nothing and return False.
    They may be called from any thread.
    """

    __slots__ = (
        "_closed",
        "_correct",
        "_end",
        "_entry",
        "_failed",
        "_is_correctable",
        "_journal",
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
        "verified",
        "would_refuse",
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
        rate: Rate | None = None,
        bounds: Counts | None = None,
        request: CallRequest | None = None,
        failed: Failed = "nothing",
        journal: Callable[[Entry], None] | None = None,
        correct: Callable[[Entry, Decimal, str], None] | None = None,
    ) -> None:
        super().__init__(model, rate=rate, bounds=bounds, request=request)
        self._end = end
        self._settings = settings
        self._closed = False
        self._entry = entry
        self._failed = failed
        # Notes what the call has used so far, where that is paid if the process dies.
        self._journal = journal if failed == "used" and entry.held else None
        self._correct = correct
        # Whether the charge ended because its caller left, and the application has not said what it comes to.
        self._is_correctable = False
        self._loop = _running_loop()
        # Decides which of two threads closes the charge. The event loop never waits for it longer than for a flag.
        self._lock = threading.Lock()
        self.id = entry.charge_id
        self.customer = customer
        self.feature_id = entry.feature_id
        self.credits = self.cost = entry.credits
        self.balance = balance
        self.verified = verified
        self.would_refuse: str | None = None
        # What an earlier attempt under the caller's key came to. Whoever hung up half-way and comes again is served for
        # that; if the whole answer costs more, `entry` is the difference.
        self._paid: Decimal | None = None
        if earlier is not None:
            self.id, self.credits = earlier.charge_id, earlier.credits
            self.cost = self._paid = earlier.cost

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return (
            f"<{type(self).__name__} {self.id} {state}: {self.credits} credits of {self.customer.id} for {self.model}>"
        )

    @property
    def closed(self) -> bool:
        """Whether the outcome is decided."""
        return self._closed

    def refund(self, reason: str = "refunded by the application") -> bool:
        """Give all credits back, for a failure that HTTP does not show, such as an error event in a stream."""
        return self._close(lambda _: Verdict(Decimal(0), str(reason)))

    def keep(self) -> bool:
        """Keep what the call costs whatever happens from here on: the customer has got what they paid for.

        That is what was taken, or what a metered call has used so far.
        """
        return self._close(lambda used: Verdict(self.credits if used is None else used, "kept by the application"))

    def settle(self, credits: Decimal | float | str) -> bool:  # noqa: A002 - Autumn's own word
        """Charge `credits` instead, once the real cost is known; 0 is a refund.

        The amount is rounded up at ten decimal places, so any quotient will do. Above what was taken, Autumn takes the
        rest as far as the balance goes.

        Raises:
            AmountError: Negative, not finite, not a number, or absurdly large.
        """
        amount = rounded_up(credits)
        return self._close(lambda _: Verdict(amount, "settled by the application"))

    def cost_after(self, outcome: Outcome) -> Decimal:
        """Return what the call costs in credits if it ends in `outcome`, and nothing more is reported."""
        if self._closed or self._paid is not None:
            return self.cost
        return self._by_default(outcome, self._used()).credits

    def finish(self, outcome: Outcome) -> None:
        """Close the charge the way the call ended, unless it is closed already."""
        self._close(lambda used: self._by_default(outcome, used), by_default=outcome)

    def _by_default(self, outcome: Outcome, used: Decimal | None) -> Verdict:
        return by_default(
            outcome,
            self._settings,
            charged=self.credits if used is None else used,
            in_spite_of_failure=used if used is not None and self._failed == "used" else Decimal(0),
        )

    def _used(self) -> Decimal | None:
        """Return what the use comes to; None where nothing was counted, or the price is fixed."""
        reading = self._reading()
        return None if reading is None else reading.cost

    def _report(self, counts: Counts, response_id: str | None) -> bool:
        with self._lock:
            if self._closed:
                return False
            super()._report(counts, response_id)
        self._note_progress()
        return True

    def _note_progress(self) -> None:
        """Have what was used so far written down, where that is paid even if the process dies."""
        if self._journal is not None:
            self._on_the_loop(self._write_progress)

    def _write_progress(self) -> None:
        # On the event loop, as the end is, so that nothing is noted after the end.
        reading = self._reading()
        if self._journal is None or self._closed or reading is None or reading.cost is None:
            return
        self._journal(
            self._entry._replace(cost=reading.cost, reason="the process died", details=self._details(reading))
        )

    def _details(self, reading: Reading | None) -> str | None:
        """What Autumn's event says about the use; None where there is nothing to say."""
        if not self.metered:
            return None
        shown = {"counted": "held"} if reading is None or reading.cost is None else self._details_of(reading)
        return json.dumps({"model": self.model, **shown})

    def _details_of(self, reading: Reading) -> dict[str, Any]:
        return reading.properties()

    def _close(self, decide: Callable[[Decimal | None], Verdict], *, by_default: Outcome | None = None) -> bool:
        """Close the charge at what `decide` makes of the use, unless it is closed already."""
        with self._lock:
            if self._closed:
                return by_default is None and self._close_again(decide)
            reading = self._reading()
            verdict = decide(None if reading is None else reading.cost)
            if self._paid is not None and verdict.credits <= self._paid:
                return False
            self._closed = True
            self._is_correctable = by_default is Outcome.GONE
            self.cost = verdict.credits
        if self.credits:
            with exact():
                cost = verdict.credits - (self._paid or 0)
            ended = self._entry._replace(cost=cost, reason=verdict.reason, details=self._details(reading))
            self._on_the_loop(self._end, ended)
        # Last, because a meter of the application's may raise. A call that was not billed counts, too.
        telemetry.charges.add(1, {"outcome": _kind(verdict, self.credits)})
        return True

    def _close_again(self, decide: Callable[[Decimal | None], Verdict]) -> bool:
        """Let the application say what a call comes to whose caller left before it could.

        A generator that is not waiting itself, such as one that runs in a thread, is told of a hang-up only when the
        request is over. If what it says then came too late, its callers could choose the price by hanging up.
        """
        if not self._is_correctable or self._correct is None:
            return False
        self._is_correctable = False
        reading = self._reading()
        verdict = decide(None if reading is None else reading.cost)
        with exact():
            difference = verdict.credits - self.cost
        self.cost = verdict.credits
        if difference:
            self._on_the_loop(self._correct, self._entry, difference, verdict.reason)
        return True

    def _on_the_loop(self, do: Callable[..., None], *arguments: Any) -> None:
        """Hand something to the outbox. What wakes it up belongs to its event loop; `def` handlers run in threads."""
        if self._loop is None or _is_running(self._loop):
            do(*arguments)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(do, *arguments)
        else:
            _log.error("Charge %s is used after its event loop. Another process settles it as one that died.", self.id)


@contextmanager
def ending(
    charge: Charge, gone: tuple[type[BaseException], ...], leave_to_request: Callable[..., None] | None
) -> Iterator[None]:
    """End a charge as the block inside ends; see `Charges.charge`."""
    try:
        yield
    except BaseException as error:
        if leave_to_request is not None and (isinstance(error, gone) or not isinstance(error, Exception)):
            leave_to_request(charge, cancelled=isinstance(error, asyncio.CancelledError))
        else:
            charge.finish(Outcome.GONE if isinstance(error, gone) else Outcome.FAILED)
        raise
    charge.finish(Outcome.DONE)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop; None where a test makes a charge by hand without one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _kind(verdict: Verdict, charged: Decimal) -> str:
    if verdict.credits == charged:
        return "kept"
    return "settled" if verdict.credits else "refunded"
