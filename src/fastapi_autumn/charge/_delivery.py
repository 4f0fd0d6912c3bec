"""Doing at Autumn what the entries of the outbox need."""

import contextlib
import logging
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, assert_never

from pydantic_core import from_json

from fastapi_autumn import telemetry
from fastapi_autumn._exact import exact
from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.charge._event_log import SCAN_SLACK_MS, EventLog
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.errors import (
    AutumnError,
    CustomerNotFound,
    DuplicateRequest,
    LockNotClaimable,
    NoAnswer,
    Overloaded,
    RateLimited,
    RequestRejected,
    Unavailable,
    Uncertain,
)
from fastapi_autumn.models import Customer, TrackResult
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Entry, ledger
from fastapi_autumn.settlement import entry as rule
from fastapi_autumn.settlement.entry import Done, Doubt, Finalize, Grant, Look, Seal, Track

if TYPE_CHECKING:
    from fastapi_autumn.settlement.sender import Result
    from fastapi_autumn.settlement.store import WorkerRow

__all__ = ["Delivery"]

_log = logging.getLogger("fastapi_autumn.outbox")

_FIRST_BACKOFF_MS = 500
_LONGEST_BACKOFF_MS = 300_000
_LONGEST_RETRY_AFTER_SECONDS = 3600.0
_ROUNDING = Decimal("1e-9")
_CLOCK_RESOLUTION_MS = 2_000
"""Autumn's answers tell its time in whole seconds."""
_KEY_PROBLEMS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_NO_HOLD = "invalid_request"
"""Autumn's code for a lock that it does not know. Any other no leaves the hold where it is."""


class _Waits(Exception):
    """An entry cannot be finished now; it says how it stands."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.charge_id)
        self.entry = entry


class _Short(Exception):
    """Autumn cannot be brought to what an entry asks for."""

    def __init__(self, entry: Entry, why: str) -> None:
        super().__init__(why)
        self.entry = entry


class Delivery:
    """What the sender and the rescuer are handed.

    Args:
        settings: How long Autumn's event log may take to show what has happened.
        client: The way to Autumn.
        machine: Chance.
    """

    def __init__(self, settings: AutumnSettings, *, client: AutumnClient, machine: Machine = MACHINE) -> None:
        self._event_delay_ms = int(settings.event_delay * 1000)
        self._silence_ms = int(settings.silence * 1000)
        self._client = client
        self._machine = machine
        self._now = client.now_ms
        self._log = EventLog(client, now=client.now_ms)

    async def deliver(self, entry: Entry) -> "Result":
        """Do what `entry` needs, as far as that is possible now, and return what is left of it."""
        with exact():
            return await self._deliver(entry)

    async def _deliver(self, entry: Entry) -> "Result":
        from fastapi_autumn.settlement.sender import Result  # noqa: PLC0415 - see `fastapi_autumn.settlement`

        entry = rule.in_doubt(entry, self._now())
        try:
            while not isinstance(step := rule.next_step(entry), Done):
                entry = await self._take(step, entry)
        except _Waits as waits:
            return Result(waits.entry, "due")
        except _Short as short:
            telemetry.shortfalls.add(1)
            _log.error("Charge %s ends with a shortfall: %s", entry.charge_id, short)
            return Result(short.entry._replace(last_error=str(short)), "shortfall")
        return Result(entry, None)

    async def knows_the_time(self) -> bool:
        """Make sure that Autumn's clock is known, if need be by asking Autumn anything; False if it does not answer."""
        if not self._client.knows_the_time:
            with contextlib.suppress(AutumnError):
                await self._client.get("organization/me")
        return self._client.knows_the_time

    async def find_unwritten(self, worker: "WorkerRow") -> list[Entry]:
        """Find the charges that a dead worker made and never wrote down, and return what gives them back.

        Such a charge never got as far as an answer to a caller, or it ended in the worker's last moments.
        """
        # Whoever charged for longer than that wrote in between. If the worker's row does not know, the database comes
        # from a backup, and what the log shows of the time since was settled long ago.
        until = worker.seen_at + self._silence_ms + SCAN_SLACK_MS
        found: dict[str, Entry] = {}
        async for event in self._log.events_since(worker.seen_at):
            charge = str(event.properties.get(ledger.CHARGE_ID, ""))
            number = ledger.charge_number(charge, worker.id)
            if number is None or number <= worker.complete_to or ledger.is_hold(event.properties):
                continue
            if event.timestamp > until:
                continue
            # Sealed and looked up like any other, because the worker may live and settle it at the same moment.
            found[charge] = Entry(
                charge_id=charge,
                customer_id=event.customer_id or "",
                feature_id=event.feature_id,
                entity_id=event.entity_id,
                credits=abs(event.value),
                cost=Decimal(0),
                reason="the process died",
                created_at=event.timestamp,
            )
        return list(found.values())

    # One step at Autumn. Each returns the entry with what is known then, or raises `_Waits` or `_Short`.

    async def _take(self, step: rule.Step, entry: Entry) -> Entry:
        try:
            try:
                return await self._perform(step, entry)
            except CustomerNotFound:
                may_come_at = entry.created_at + self._event_delay_ms
                if entry.taken is None and self._now() < may_come_at:
                    # The creation and the check may both still be on their way, and a 404 seals no key.
                    raise _Waits(entry._replace(due_at=may_come_at)) from None
                if entry.taken or not entry.cost:
                    # Whatever was taken was deleted together with the customer.
                    return entry._replace(taken=entry.cost, held=False, to_grant=Decimal(0), doubt=Doubt.NONE)
                # Served while Autumn could not be asked, and never heard of there.
                await self._client.customers.get_or_create(Customer(entry.customer_id))
                return await self._perform(step, entry)
        except Unavailable as error:
            acted = isinstance(step, Track | Finalize) and isinstance(error, Uncertain)
            left = rule.attempt_unknown(entry) if acted else entry
            raise _Waits(self._again(left, error, after=error.retry_after)) from error
        except RequestRejected as error:
            if error.status in _KEY_PROBLEMS:
                raise _Waits(self._again(entry, error, after=None)) from error
            raise _Short(entry, f"Autumn refuses it: {error}") from error

    async def _perform(self, step: rule.Step, entry: Entry) -> Entry:
        match step:
            case Seal(key):
                return await self._seal(key, entry)
            case Look():
                return await self._look(entry)
            case Track(value, key):
                return await self._track(value, key, entry)
            case Finalize(value, key):
                return await self._finalize(value, key, entry)
            case Grant(value, feature_id):
                return await self._grant(value, feature_id, entry)
            case Done():
                return entry
            case _:
                assert_never(step)

    async def _seal(self, key: str, entry: Entry) -> Entry:
        in_use = await self._is_in_use(key, entry)
        now = self._now()
        return self._when_due(rule.sealed(entry, in_use=in_use, delay_ms=self._event_delay_ms, now=now))

    async def _is_in_use(self, key: str, entry: Entry) -> bool:
        """Use a key up on a check that asks for nothing and takes nothing; True if something had used it before."""
        try:
            await self._client.balances.check(
                entry.customer_id,
                entry.feature_id,
                entity_id=entry.entity_id,
                required_balance=Decimal(0),
                idempotency_key=key,
            )
        except DuplicateRequest:
            return True
        return False

    async def _look(self, entry: Entry) -> Entry:
        shown = await self._log.sum_of(entry)
        if not rule.is_enough(entry, shown):
            # A sum may lag behind the log itself, and nothing is given up for lost on the word of a sum.
            shown = await self._moved(entry)
        # Before the first answer nobody knows how wrong this machine's clock is, so a look may have come too early.
        if entry.due_at - self._now() > _CLOCK_RESOLUTION_MS:
            raise _Waits(entry)
        if entry.doubt is not Doubt.IN_USE:
            return rule.looked(entry, shown)
        in_use = await self._is_in_use(entry.key, entry)
        now = self._now()
        again = rule.sealed_again(entry, in_use=in_use, shown=shown, delay_ms=self._event_delay_ms, now=now)
        return self._when_due(again)

    async def _moved(self, entry: Entry) -> Decimal:
        """Return what the log says that this charge has moved, in units of the feature."""
        shown = await self._log.shown_for(entry)
        if shown.moved is None or shown.moved == shown.asked:
            return shown.asked
        required = entry.required or await self._rate(entry) or entry.credits
        return shown.moved * entry.credits / required

    async def _track(self, value: Decimal, key: str, entry: Entry) -> Entry:
        result = await self._client.balances.track(
            entry.customer_id,
            feature_id=entry.feature_id,
            entity_id=entry.entity_id,
            value=value,
            properties=ledger.settling(entry.charge_id, reason=entry.reason, details=_details(entry)),
            idempotency_key=key,
        )
        missing = _missing(result, value, entry)
        if missing:
            # Deductions are in units of what paid. Where the check's answer was never read nobody knows how many of
            # those a credit comes to, and it may have been changed since.
            entry = entry._replace(required=await self._rate(entry))
            missing = _missing(result, value, entry)
        if not missing:
            return entry._replace(taken=entry.cost)
        left = rule.moved_too_little(entry, missing, dropped=_is_dropped(result, entry))
        if left.to_grant:
            return left
        raise _Short(left, f"Autumn was asked to move {value} credits and did not move {missing} of them")

    async def _rate(self, entry: Entry) -> Decimal | None:
        """Return what `entry.credits` would take from the balance today."""
        try:
            answer = await self._client.balances.check(
                entry.customer_id, entry.feature_id, entity_id=entry.entity_id, required_balance=entry.credits
            )
        except Unavailable as error:
            # If there was a track before it, that may not be repeated: its outcome is unknown from here on.
            raise NoAnswer("balances.check", "what a credit comes to is not known") from error
        return answer.required_balance

    async def _grant(self, value: Decimal, feature_id: str, entry: Entry) -> Entry:
        if self._now() - entry.created_at > rule.STALE_MS:
            # Nothing proves any more that an earlier attempt did not grant it.
            raise _Short(entry, f"{value} of {feature_id} could not be granted anew in time")
        await self._client.balances.grant(
            entry.customer_id,
            feature_id,
            value,
            key=ledger.grant_id(entry.charge_id),
            expires_at=entry.loose_until,
            entity_id=entry.entity_id,
        )
        return entry._replace(to_grant=Decimal(0))

    async def _finalize(self, value: Decimal, key: str, entry: Entry) -> Entry:
        try:
            await self._client.balances.finalize(
                ledger.lock_id(entry.charge_id),
                "confirm" if value else "release",
                override_value=value if value and value != entry.credits else None,
                properties=_properties(entry),
                idempotency_key=key,
            )
        except (RequestRejected, LockNotClaimable) as error:
            if isinstance(error, RequestRejected) and error.code != _NO_HOLD:
                raise
            # There is no hold to finalize. What has become of it is in the log.
            now = self._now()
            return self._when_due(rule.finalize_refused(entry, delay_ms=self._event_delay_ms, now=now))
        return entry._replace(held=False, taken=value, key_number=entry.key_number + 1)

    def _when_due(self, entry: Entry) -> Entry:
        if entry.due_at > self._now():
            raise _Waits(entry)
        return entry

    def _again(self, entry: Entry, error: Exception, *, after: float | None) -> Entry:
        attempts = entry.attempts + 1
        jitter = self._machine.uniform(0.5, 1)
        pause = min(_LONGEST_BACKOFF_MS, _FIRST_BACKOFF_MS * 2 ** min(attempts - 1, 20)) * jitter
        if after is not None:
            pause = min(after, _LONGEST_RETRY_AFTER_SECONDS) * 1000 + _FIRST_BACKOFF_MS * jitter
        if isinstance(error, RateLimited | Overloaded):
            # Nothing was tried.
            attempts = entry.attempts
        # A row may be claimed too early, by a clock that is ahead until Autumn's first answer corrects it. What the log
        # may be trusted from must not be forgotten then.
        due_at = max(entry.due_at, self._now() + int(pause))
        return entry._replace(attempts=attempts, due_at=due_at, last_error=str(error))


def _details(entry: Entry) -> dict[str, Any] | None:
    return None if entry.details is None else from_json(entry.details)


def _properties(entry: Entry) -> dict[str, Any] | None:
    """Return the properties of a finalize. Where there is nothing to add, Autumn keeps those of the hold."""
    details = _details(entry)
    return None if details is None else ledger.finalizing(entry.charge_id, reason=entry.reason, details=details)


def _is_dropped(result: TrackResult, entry: Entry) -> bool:
    """Tell whether the loose grant that was there when the call began is gone by now."""
    grants = () if result.balance is None else result.balance.breakdown
    return entry.loose_id is not None and all(grant.id != entry.loose_id for grant in grants)


def _missing(result: TrackResult, asked: Decimal, entry: Entry) -> Decimal:
    """Return what Autumn did not move of what it was asked to, in units of the feature.

    It moves nothing back into a grant that was used up, takes no more than there is, and gives back no more than was
    used. Its event log shows what was asked for; only this answer shows what moved.
    """
    if result.deductions is None or (result.balance is not None and result.balance.unlimited):
        return Decimal(0)
    moved = sum((deduction.value for deduction in result.deductions), start=Decimal(0))
    if entry.required and entry.required != entry.credits:
        moved = moved * entry.credits / entry.required
    missing = asked - moved
    return missing if abs(missing) > _ROUNDING else Decimal(0)
