"""One hold for a run of many model calls, each taken from it before it is made.

What is left is kept here, under one lock, so steps that run in parallel never get more than there is. Autumn is told
once, at the end. Until then the outbox notes what the steps have come to, so a run that dies is billed for them.
"""

import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple

from fastapi_autumn._exact import exact
from fastapi_autumn.charge._charge import Charge
from fastapi_autumn.charge._metered import Metered
from fastapi_autumn.charge._quotes import AskedFor, Estimate, Quote, quote
from fastapi_autumn.errors import BudgetExceeded, ConfigurationError
from fastapi_autumn.metering import Counts, Meter, Reading
from fastapi_autumn.metering._clients import Client, metered_client
from fastapi_autumn.pricing import PriceList, rounded_up, to_json_number
from fastapi_autumn.pricing import credits as exact_credits
from fastapi_autumn.settlement import Outcome, Verdict

__all__ = ["Budget", "Part", "Step", "StepRecord"]

_MODELS_SHOWN = 20
_NOTHING = Decimal(0)


class StepRecord(NamedTuple):
    """A step that has ended."""

    model: str
    cost: Decimal
    left: Decimal
    """What was left of the budget, or of the part of it, after the step."""


class Step(Metered):
    """One model call of a budget.

    Attributes:
        credits: What was reserved for it.
        cost: What it costs, once it has ended; until then what was reserved.
    """

    __slots__ = ("_closed", "_pot", "cost", "credits")

    def __init__(self, pot: "_Pot", model: str, asked: Quote) -> None:
        super().__init__(model, rate=asked.rate, bounds=asked.bounds, request=asked.request)
        self._pot = pot
        self._closed = False
        self.credits = self.cost = asked.credits

    def __repr__(self) -> str:
        return f"<Step {'closed' if self._closed else 'open'}: {self.cost} credits for {self.model}>"

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    def settle(self, credits: Decimal | float | str) -> bool:  # noqa: A002 - Autumn's own word
        """End it at `credits`, rounded up at ten decimal places; False, and nothing changed, if it has ended.

        Raises:
            AmountError: Negative, not finite, not a number, or absurdly large.
        """
        return self._pot.end(self, rounded_up(credits))

    def finish(self, outcome: Outcome = Outcome.DONE) -> bool:
        """End it the way its call ended; False, and nothing changed, if it has ended.

        Done costs what was used, or what was reserved where nobody reported anything or the price is fixed. Failed
        costs what was reported or has passed, and nothing else. Gone costs as much, and if that is nothing, what was
        reserved, provided that the whole run ends as gone: whoever leaves may not get its last step for nothing.
        """
        reading = self.read()
        used = None if reading is None else reading.cost
        if outcome is Outcome.DONE:
            return self._pot.end(self, self.credits if used is None else used)
        return self._pot.end(self, used or _NOTHING, broken_off=outcome is Outcome.GONE and not used)

    def read(self) -> Reading | None:
        """Return what was counted; None before anything was."""
        return self._reading()

    def close(self, cost: Decimal) -> None:
        """Note that it has ended; its pot sees to the rest."""
        self._closed, self.cost = True, cost

    def _report(self, counts: Counts, response_id: str | None) -> bool:
        return self._pot.reported(self, lambda: super(Step, self)._report(counts, response_id))


class _Pot:
    """What there is for steps. A part of a budget is a pot of its own, taken from the pot above it."""

    def __init__(self, total: Decimal, progressed: Callable[[], None], lock: "threading.RLock | None" = None) -> None:
        self.total = total
        self.records: list[StepRecord] = []
        self.lock = lock or threading.RLock()
        self._progressed = progressed
        self.exceeded: Callable[[BudgetExceeded], None] | None = None
        self._closed = False
        self._reserved = self._spent = self._broken_off = _NOTHING
        self._open: list[Step | _Pot] = []
        self._counts = Counts()
        self._response_ids: list[str] = []

    @property
    def left(self) -> Decimal:
        with self.lock, exact():
            return max(_NOTHING, self.total - self._spent - self._broken_off - self._reserved)

    def begin(self, model: str, asked: Quote) -> Step:
        """Reserve what a step can cost.

        Raises:
            BudgetExceeded: Not so much is left.
        """
        step = Step(self, model, asked)
        self._reserve(step, asked.credits, model=model)
        return step

    def part(self, total: Decimal) -> "_Pot":
        """Reserve a part for steps of its own.

        Raises:
            BudgetExceeded: Not so much is left.
        """
        pot = _Pot(total, self._progressed, self.lock)
        pot.exceeded = self.exceeded
        self._reserve(pot, total)
        return pot

    def _reserve(self, what: "Step | _Pot", amount: Decimal, **detail: Any) -> None:
        with self.lock, exact():
            if self._closed:
                raise ConfigurationError("The budget has ended, so nothing can be taken from it any more.")
            if amount > self.left:
                detail |= {"required": to_json_number(amount), "left": float(self.left)}
                error = BudgetExceeded("What is left of the budget does not cover this step.", **detail)
                if self.exceeded is None:
                    raise error
                self.exceeded(error)
            self._reserved += amount
            self._open.append(what)

    def end(self, step: Step, cost: Decimal, *, broken_off: bool = False) -> bool:
        """Take what a step costs, and give back what it does not; False if it has ended before.

        Of a step that was `broken_off`, nobody knows the cost. Nobody else gets what was reserved for it.
        """
        with self.lock, exact():
            if step not in self._open:
                return False
            reading = step.read()
            step.close(cost)
            self._release(step, step.credits, cost)
            if broken_off:
                self._broken_off += step.credits
            if reading is not None:
                self._counts += reading.counts
                self._response_ids.extend(reading.response_ids)
            self.records.append(StepRecord(step.model, cost, self.left))
        self._progressed()
        return True

    def end_part(self, pot: "_Pot") -> None:
        """Take what a part's steps came to, and give back the rest of it."""
        with self.lock, exact():
            # Of steps that still run, what they have reported is all that anybody will learn.
            self._broken_off += pot.unknown(outcome=Outcome.GONE)
            self._release(pot, pot.total, pot.used())
            self._counts += pot.counts()
            self._response_ids.extend(pot.response_ids())
            self.records.extend(pot.records)
            pot.close()
        self._progressed()

    def _release(self, what: "Step | _Pot", reserved: Decimal, cost: Decimal) -> None:
        self._reserved -= reserved
        self._spent += cost
        self._open.remove(what)

    def close(self) -> None:
        """Begin no steps any more."""
        with self.lock:
            self._closed = True

    def reported(self, step: Step, report: Callable[[], bool]) -> bool:
        """Have a step take a report, unless it has ended."""
        with self.lock:
            if step.closed or self._closed or not report():
                return False
        self._progressed()
        return True

    def used(self) -> Decimal:
        """What all steps have come to, those that still run as far as they have reported."""
        with self.lock, exact():
            running = (one.used_so_far if isinstance(one, Step) else one.used() for one in self._open)
            return self._spent + sum(running, start=_NOTHING)

    def unknown(self, *, outcome: Outcome) -> Decimal:
        """What was reserved for steps of which nobody knows what they used, as far as a run with `outcome` costs it."""
        if outcome is Outcome.FAILED:
            return _NOTHING
        with self.lock, exact():
            total = self._broken_off if outcome is Outcome.GONE else _NOTHING
            for one in self._open:
                if isinstance(one, _Pot):
                    total += one.unknown(outcome=outcome)
                elif not one.used_so_far:
                    total += one.credits
            return total

    def counts(self) -> Counts:
        """What the steps that have ended have counted."""
        with self.lock:
            return Counts.sum([self._counts, *(one.counts() for one in self._open if isinstance(one, _Pot))])

    def response_ids(self) -> list[str]:
        """The responses that were reported by those steps."""
        with self.lock:
            inner = [one.response_ids() for one in self._open if isinstance(one, _Pot)]
            return [response_id for ids in (self._response_ids, *inner) for response_id in ids]


class Steps:
    """What can be done with a budget, and with a part of one."""

    __slots__ = ()

    _pot: _Pot
    _prices: PriceList

    @property
    def left(self) -> Decimal:
        """What no step has taken or reserved, in credits."""
        return self._pot.left

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The steps that have ended, in that order: model, cost, and what was left then."""
        return tuple(self._pot.records)

    @asynccontextmanager
    async def step(
        self,
        model: str,
        *,
        credits: Decimal | float | str | None = None,  # noqa: A002 - Autumn's own word
        request: AskedFor = None,
        estimate: Estimate | None = None,
    ) -> AsyncIterator[Step]:
        """Take what a call of `model` can cost from the budget, before it is made, and give back what it did not use.

        An exception inside ends the step at what it had reported by then; see `Step.finish`.

        Args:
            model: What is called.
            credits: Reserved instead of the price, or of the most that a rate comes to.
            request: What a rate's call asks for: the arguments of the call, or the JSON of it.
            estimate: From a rate and a request to what is reserved instead of the most.

        Raises:
            BudgetExceeded: Not so much is left. The call must not be made.
            UnknownModel: The price list does not have the model.
            Unbounded: Nothing says what the call can use at most.
            ConfigurationError: The budget has ended.
        """
        step = await self.open_step(model, credits=credits, request=request, estimate=estimate)
        try:
            yield step
        except Exception:
            step.finish(Outcome.FAILED)
            raise
        except BaseException:
            step.finish(Outcome.GONE)
            raise
        step.finish()

    async def open_step(
        self,
        model: str,
        *,
        credits: Decimal | float | str | None = None,  # noqa: A002 - Autumn's own word
        request: AskedFor = None,
        estimate: Estimate | None = None,
    ) -> Step:
        """Begin a step that ends with `finish`, for frameworks with callbacks. As `step` otherwise."""
        asked = await quote(self._prices, model, credits=credits, request=request, estimate=estimate)
        return self._pot.begin(model, asked)

    def meter(self, client: Client, *, ask_for_usage: bool = True) -> Client:
        """Return a copy of a provider's async client each of whose calls is a step: reserved before it is made.

        A call that does not fit raises `BudgetExceeded`, and is not made. See `Metered.meter` for the rest.
        """

        async def begin(model: str, arguments: Mapping[str, Any]) -> Step:
            return await self.open_step(model, request=arguments)

        return metered_client(client, None, begin=begin, ask_for_usage=ask_for_usage)

    @asynccontextmanager
    async def budget(self, credits: Decimal | float | str) -> "AsyncIterator[Part]":  # noqa: A002 - Autumn's own word
        """Set `credits` of it aside for steps of their own, such as those of an agent that this one calls.

        Raises:
            BudgetExceeded: Not so much is left.
            AmountError: `credits` is no amount.
        """
        pot = self._pot.part(exact_credits(credits))
        try:
            yield Part(pot, self._prices)
        finally:
            self._pot.end_part(pot)


class Part(Steps):
    """A part of a budget, set aside for steps of its own."""

    __slots__ = ("_pot", "_prices")

    def __init__(self, pot: _Pot, prices: PriceList) -> None:
        self._pot = pot
        self._prices = prices

    def __repr__(self) -> str:
        return f"<Part of a budget: {self.left} of {self._pot.total} credits left>"


class Budget(Charge, Steps):
    """One hold for a run of many model calls. It costs what its steps come to.

    A `Charge` in everything else: `refund` gives all of it back, `keep` ends it at what its steps have come to, and
    left alone it ends as its request or its block. A failure costs what the steps used, unless it was opened with
    `failed="nothing"`.
    """

    __slots__ = ("_pot", "_prices")

    meter = Steps.meter

    def __init__(self, *arguments: Any, total: Decimal, prices: PriceList, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pot = _Pot(total, self._note_progress)
        self._prices = prices

    @property
    def metered(self) -> bool:
        """Whether what it costs depends on what it uses. It does."""
        return True

    def let_through(self, note: Callable[[str, str], None]) -> None:
        """Note steps that do not fit, by code and message, instead of refusing them: `AUTUMN_MODE=observe`."""
        self._pot.exceeded = lambda error: note(error.code, error.message)

    def _the_meter(self) -> Meter:
        raise ConfigurationError("A budget has no price of its own: open a step of it, and report there what it used.")

    @property
    def used_so_far(self) -> Decimal:
        """What the steps have come to, in credits."""
        return self._pot.used()

    @property
    def counts(self) -> Counts:
        """What the steps that have ended add up to."""
        return self._pot.counts()

    def _reading(self) -> Reading:
        with self._pot.lock:
            return Reading(rounded_up(self._pot.used()), self._pot.counts(), "steps", tuple(self._pot.response_ids()))

    def _by_default(self, outcome: Outcome, used: Decimal | None) -> Verdict:
        with exact():
            used = (used or _NOTHING) + self._pot.unknown(outcome=outcome)
        return super()._by_default(outcome, used)

    def _close(self, decide: Callable[[Decimal | None], Verdict], *, by_default: Outcome | None = None) -> bool:
        closed = super()._close(decide, by_default=by_default)
        self._pot.close()
        return closed

    def _details_of(self, reading: Reading) -> dict[str, Any]:
        models = sorted({record.model for record in self._pot.records})
        return reading.properties() | {"steps": len(self._pot.records), "models": models[:_MODELS_SHOWN]}
