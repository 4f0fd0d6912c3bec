"""Each protection taken out in turn, to see that the simulated world notices: `python -m simulation.mutations`.

A mutation is a patch on the running code: a function, a method or a constant replaced. It is found when a seed shows a
violation with it, and none without it.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from fastapi_autumn import _attempts, _ending
from fastapi_autumn.charge import _budget, _charge, _charges, _delivery
from fastapi_autumn.client import _calls
from fastapi_autumn.errors import DuplicateRequest, RequestRejected
from fastapi_autumn.gate import _gate
from fastapi_autumn.metering import _meter
from fastapi_autumn.settlement import Outcome, entry, ledger, outbox, pending, rescue, sender
from fastapi_autumn.settlement.entry import Doubt, Finalize, Look, Seal
from fastapi_autumn.settlement.store import Delivered
from simulation.memory import SimulatedStore
from simulation.plan import generate
from simulation.scenario import play

__all__ = ["MUTATIONS", "Mutation", "find", "mutated"]

_ZERO = Decimal(0)


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken out.

    `patches` are targets, names, and functions from what was there to what is there instead.
    """

    name: str
    patches: tuple[tuple[Any, str, Callable[[Any], Any]], ...]
    layer: str = "lean"
    themes: frozenset[str] = frozenset()
    """Seeds whose plan has none of these cannot show it, and are passed over."""


def _mutation(
    name: str, target: Any, attribute: str, change: Callable[[Any], Any], *, layer: str = "lean", of: str = ""
) -> Mutation:
    return Mutation(name, ((target, attribute, change),), layer, frozenset(of.split()))


def _nothing(_: Any) -> Any:
    return lambda *_, **__: None


def _async(value: Any) -> Callable[[Any], Any]:
    def change(_: Any) -> Any:
        async def instead(*_: Any, **__: Any) -> Any:
            return value

        return instead

    return change


def _no_when_duplicate(original: Any) -> Any:
    async def check(self: Any, *given: Any) -> Any:
        try:
            return await original(self, *given)
        except DuplicateRequest as error:
            raise RequestRejected("balances.check", status=409, code="duplicate", message=str(error)) from error

    return check


def _without_delay(original: Any) -> Any:
    def instead(self: Any, settings: Any, **given: Any) -> None:
        original(self, settings, **given)
        self._event_delay_ms = 0

    return instead


def _keep_dropped(original: Any) -> Any:
    """Forget what a failed commit was to write."""

    def take_back(self: Any, taken: Any) -> None:
        original(self, pending.Taken({}, {}))

    return take_back


def _complete(original: Any) -> Any:
    async def commit(self: Any, batch: Any) -> None:
        await original(self, replace(batch, complete_to=10**6))

    return commit


def _never_dead(original: Any) -> Any:
    def beat(self: Any, batch: Any) -> None:
        original(self, replace(batch, confirmed=0))

    return beat


def _unleased(original: Any) -> Any:
    async def claim(self: Any, worker_id: str, *, now: int, until: int, **how: Any) -> Any:
        return await original(self, worker_id, now=now, until=now - 1, **how)

    return claim


def _from_the_start(original: Any) -> Any:
    async def find(self: Any, worker: Any) -> Any:
        return await original(self, replace(worker, complete_to=0))

    return find


def _code_of_anybody(original: Any) -> Any:
    def code(body: bytes) -> Any:
        return original(body) or ("unknown", "an answer that is not Autumn's")

    return code


def _open_hold(original: Any) -> Any:
    """Release a hold without knowing that it is there."""

    def step(one: Any) -> Any:
        if one.held and one.doubt is Doubt.UNKNOWN and not one.cost:
            return Finalize(_ZERO, ledger.key_of(one.charge_id, 1))
        return original(one)

    return step


def _no_seal(original: Any) -> Any:
    def step(one: Any) -> Any:
        found = original(one)
        return Look() if isinstance(found, Seal) else found

    return step


def _unsealed_look(original: Any) -> Any:
    """Wait for the log, but leave the key open meanwhile."""

    async def seal(self: Any, key: str, one: Any) -> Any:
        return self._when_due(entry.sealed(one, in_use=False, delay_ms=self._event_delay_ms, now=self._now()))

    return seal


def _never_in_use(original: Any) -> Any:
    def sealed(one: Any, *, in_use: bool, **how: Any) -> Any:
        del in_use
        return original(one, in_use=False, **how)

    return sealed


def _free_when_unverified(original: Any) -> Any:
    def unverified(self: Any, one: Any, customer: Any, model: str, error: Any) -> Any:
        charge = original(self, one, customer, model, error)
        charge.keep()
        return charge

    def change(self: Any, one: Any, customer: Any, model: str, error: Any) -> Any:
        before = self._end
        self._end = lambda ended: None
        try:
            return unverified(self, one, customer, model, error)
        finally:
            self._end = before

    return change


def _second_word(original: Any) -> Any:
    """Let a later decision about a charge replace the first."""

    def close(self: Any, verdict: Any) -> bool:
        self._closed = False
        return original(self, verdict)

    return close


def _same_key(original: Any) -> Any:
    return lambda charge, number: original(charge, 0)


def _no_key(original: Any) -> Any:
    del original
    return lambda charge, number: ""


def _any_sum(original: Any) -> Any:
    del original
    return lambda one, shown: one._replace(
        taken=one.taken or _ZERO, doubt=Doubt.NONE, held=False, key_number=one.key_number + 1
    )


def _decided(outcome: Outcome) -> Callable[[Any], Any]:
    def change(_: Any) -> Any:
        def instead(self: Any, *_: Any) -> None:
            self._decide(outcome)

        return instead

    return change


def _failed_whenever(original: Any) -> Any:
    """Take any exception that comes out for a failure, however late."""

    def outcome(self: Any, error: Any = None) -> Any:
        return Outcome.FAILED if error is not None else original(self, error)

    return outcome


def _own_clock(_: Any) -> Any:
    return lambda self: self._machine.wall_ms()


def _always_alive(_: Any) -> Any:
    return property(lambda self: not self._stopping and self._alive_at is not None)


def _of_anybody(original: Any) -> Any:
    """Write what came of a delivery, whoever has claimed the row since."""

    def write(self: Any, charge_id: str, change: Any, owner: str) -> None:
        known = self.database.charges.get(charge_id)
        if known is not None and isinstance(change, Delivered):
            owner, known.lease_until = known.owner, known.lease_until or 1
        original(self, charge_id, change, owner)

    return write


def _of_everybody(_: Any) -> Any:
    return lambda self: set(self.database.accounts) | {self.account.key_digest}


def _unrounded(original: Any) -> Any:
    """Refuse an amount with more places than Autumn has."""

    def settle(self: Any, credits: Any) -> bool:  # noqa: A002 - as the method that it replaces
        if Decimal(str(credits)).as_tuple().exponent < -10:  # type: ignore[operator]
            raise ValueError("too many places")
        return original(self, credits)

    return settle


def _impatient(original: Any) -> Any:
    def instead(self: Any, *given: Any, **more: Any) -> None:
        original(self, *given, **{**more, "silence": 1.0})

    return instead


MUTATIONS = (
    _mutation("no call carries an idempotency key", ledger, "key_of", _no_key, of="aimed weather"),
    _mutation("every attempt uses the same key", ledger, "key_of", _same_key),
    _mutation("an unknown attempt is repeated as it was", entry, "attempt_unknown", lambda _: lambda one: one),
    _mutation(
        "an unknown attempt is taken for done",
        entry,
        "attempt_unknown",
        lambda _: lambda one: one._replace(taken=one.cost, held=False),
    ),
    _mutation("the key is not sealed, the log is asked at once", entry, "next_step", _no_seal),
    _mutation(
        "the key is left open while the log is waited for", _delivery.Delivery, "_seal", _unsealed_look, of="aimed"
    ),
    _mutation("the log is read without its delay", _delivery.Delivery, "__init__", _without_delay),
    _mutation("a key in use is believed to have done nothing", entry, "sealed", _never_in_use, of="aimed"),
    _mutation("what the log shows is not believed", entry, "_known", _any_sum),
    _mutation(
        "a 409 to a check means that nothing was done",
        _charges.Charges,
        "_check",
        _no_when_duplicate,
        of="aimed weather",
    ),
    _mutation("a stranger's answer is Autumn's no", _calls, "_code_and_message", _code_of_anybody),
    _mutation("a 202 is a yes", _calls, "_ACCEPTED", lambda _: -1),
    _mutation("a hold is released before it is known to be there", entry, "next_step", _open_hold),
    _mutation(
        "a hold that is gone needs nothing more",
        entry,
        "finalize_refused",
        lambda _: lambda one, **_: one._replace(held=False, taken=one.cost),
    ),
    _mutation("a charge is not journalled when it opens", outbox.Outbox, "open", _nothing),
    _mutation(
        "what is owed at the end is not noted",
        pending.Pending,
        "end",
        lambda original: lambda self, one, *, owed: original(self, one, owed=False),
    ),
    _mutation("what a failed commit was to write is forgotten", pending.Pending, "take_back", _keep_dropped),
    _mutation("a commit claims to be complete beyond what it is", SimulatedStore, "commit", _complete),
    _mutation(
        "a worker never learns that it was taken for dead", SimulatedStore, "_beat", _never_dead, of="pauses database"
    ),
    _mutation(
        "charges that others may have settled are not checked",
        pending.Pending,
        "contest",
        lambda _: lambda self, taken: self.take_back(taken),
    ),
    _mutation("a dead worker's unwritten charges are not looked for", _delivery.Delivery, "find_unwritten", _async([])),
    _mutation("written charges are taken for unwritten", _delivery.Delivery, "find_unwritten", _from_the_start),
    _mutation("silence of a second is death", rescue.Rescuer, "__init__", _impatient, of="pauses database"),
    _mutation("nobody looks for dead workers", rescue.Rescuer, "look_round", _async(None)),
    _mutation("a claim is respected for no time", SimulatedStore, "claim", _unleased),
    _mutation("a delivery counts whoever has the row by now", SimulatedStore, "_write", _of_anybody, of="pauses"),
    _mutation("a worker that cannot write charges on", outbox.Outbox, "shows_life", _always_alive, of="database"),
    _mutation("another organisation's rows are delivered", SimulatedStore, "_accounts", _of_everybody),
    Mutation(
        "times are by each machine's own clock",
        ((outbox.Outbox, "now", _own_clock), (_delivery.Delivery, "_now", _own_clock)),
        themes=frozenset({"clocks"}),
    ),
    _mutation("rows in doubt are never claimed", sender, "_LOOK_UPS_AT_ONCE", lambda _: 0),
    _mutation("who was served unverified pays nothing", _charges.Charges, "_unverified", _free_when_unverified),
    _mutation("a later word about a charge replaces the first", _charges.Charge, "_close", _second_word),
    _mutation("an amount with many places is refused", _charges.Charge, "settle", _unrounded, layer="full"),
    _mutation("any late exception is a failure", _ending.Ending, "outcome", _failed_whenever, layer="full"),
    _mutation("who leaves pays nothing", _ending.Ending, "caller_left", _decided(Outcome.FAILED), layer="full"),
    _mutation(
        "who cannot be sent to pays nothing", _ending.Ending, "send_failed", _decided(Outcome.FAILED), layer="full"
    ),
    _mutation(
        "an answered key is forgotten",
        _attempts,
        "standing_after",
        lambda _: lambda *_: None,
        layer="full",
        of="attempts",
    ),
    _mutation(
        "what an attempt has paid is charged anew",
        _gate,
        "paid_before",
        lambda _: lambda *_: None,
        layer="full",
        of="attempts",
    ),
    _mutation(
        "what Autumn did not move is not noticed",
        _delivery,
        "_missing",
        lambda _: lambda *_: _ZERO,
        layer="full",
        of="purchases",
    ),
    _mutation(
        "what a grant cannot take back is not granted anew",
        _delivery,
        "_is_dropped",
        lambda _: lambda *_: False,
        layer="full",
        of="purchases",
    ),
    _mutation("reports of one response add up", _meter, "_newest", lambda _: lambda old, new: old + new),
    _mutation(
        "what a run has used is not written down", _charge.Charge, "_write_progress", _nothing, of="deaths database"
    ),
    _mutation("steps take more than there is", _budget._Pot, "left", lambda _: Decimal(1000)),
    _mutation("a step that was broken off is free", _budget._Pot, "unknown", lambda _: lambda *_, **__: _ZERO),
    _mutation(
        "a WebSocket that is closed as failed is paid",
        _ending,
        "_SERVER_FAILED",
        lambda _: range(0),
        layer="full",
        of="sockets",
    ),
    _mutation("a failed stream is paid", _ending.Ending, "route_exits", _nothing, layer="full"),
)


@contextlib.contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Take a protection out for a while."""
    before = []
    try:
        for target, name, change in mutation.patches:
            original = (
                target.__dict__[name] if isinstance(target, type) and name in target.__dict__ else getattr(target, name)
            )
            before.append((target, name, original, not isinstance(target, type) or name in target.__dict__))
            setattr(target, name, change(original))
        yield
    finally:
        for target, name, original, was_there in reversed(before):
            if was_there:
                setattr(target, name, original)
            else:
                delattr(target, name)


def find(mutation: Mutation, *, first: int, most: int) -> Any:
    """Play seeds with the mutation until one shows a violation that it does not show without it."""
    for seed in range(first, first + most):
        plan = generate(seed, layer=mutation.layer)
        if mutation.themes and mutation.themes.isdisjoint(plan["themes"]):
            continue
        with mutated(mutation):
            found = play(plan).found
        if found and not play(plan).found:
            return SimpleNamespace(seed=seed, tried=seed - first + 1, violation=found[0])
    return None


def main() -> int:
    """Write the table; 1 if a mutation was not found."""
    parser = argparse.ArgumentParser(prog="python -m simulation.mutations", description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds each mutation gets")
    parser.add_argument("--only", default="", help="mutations with this in their name")
    options = parser.parse_args()
    missed = 0
    print("| protection taken out | layer | seeds | what showed |\n|---|---|---|---|")
    for mutation in MUTATIONS:
        if options.only not in mutation.name:
            continue
        began = time.perf_counter()
        found = find(mutation, first=options.first, most=options.seeds)
        missed += found is None
        shown = f"{found.tried} | {found.violation}" if found else f"none of {options.seeds} | **not found**"
        print(f"| {mutation.name} | {mutation.layer} | {shown} |", flush=True)
        print(f"{time.perf_counter() - began:.1f} s", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
