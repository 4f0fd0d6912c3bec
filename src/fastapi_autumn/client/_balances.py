"""The operations `balances.*`."""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from fastapi_autumn import models
from fastapi_autumn.client._bodies import (
    Done,
    amount,
    given,
    is_entity,
    is_record_of,
    lock_body,
    names_customer,
    signed,
)
from fastapi_autumn.client._calls import Caller, Repeat
from fastapi_autumn.errors import AmountError, DuplicateRequest, Uncertain

__all__ = ["Balances"]


class Balances:
    """The operations `balances.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def check(
        self,
        customer_id: str,
        feature_id: str,
        *,
        required_balance: Decimal | float = 1,
        send_event: bool = False,
        lock: models.Lock | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        with_preview: bool = False,
        idempotency_key: str | None = None,
    ) -> models.CheckResult:
        """Ask whether the customer may use the feature, and with `send_event` or `lock` take the amount in one step.

        With `send_event` or `lock` it is repeated only when nothing was done, with or without an `idempotency_key`.

        Raises:
            AmountError: `required_balance` is negative (Autumn would add credits), not finite or not exact.
            CustomerNotFound: A check never creates a customer.
            Uncertain: With `send_event` or `lock` the amount may have been taken; so it is with `NotVerified` (Autumn
                failed open), `DuplicateRequest` and `LockAlreadyExists` too.
        """
        body = given(
            customer_id=customer_id,
            feature_id=feature_id,
            required_balance=amount(required_balance),
            send_event=send_event or None,
            lock=lock_body(lock),
            entity_id=entity_id,
            properties=properties,
            with_preview=with_preview or None,
        )
        moves = send_event or lock is not None
        return await self._caller.read(
            models.CheckResult,
            "balances.check",
            body,
            idempotency_key=idempotency_key,
            repeat=Repeat.IF_NOT_SENT if moves else Repeat.IDEMPOTENT,
            verified=True,
            about=names_customer(customer_id, entity_id),
        )

    async def track(
        self,
        customer_id: str,
        *,
        value: Decimal | float = 1,
        feature_id: str | None = None,
        event_name: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        overage_behavior: Literal["cap", "overflow"] | None = None,
        timestamp: int | None = None,
        idempotency_key: str | None = None,
    ) -> models.TrackResult:
        """Record usage that has happened, at `timestamp` (milliseconds) or now; a negative `value` gives credits back.

        Autumn takes no more than there is unless `overage_behavior` is "overflow", and gives back no more than was
        used; `deductions` says what really moved. Repeated only when nothing was done, with or without a key.

        Raises:
            Uncertain: It may have been recorded. `NotVerified`: Autumn put it off (202), `DuplicateRequest`: Autumn has
                had this `idempotency_key`; neither says that anything moved.
        """
        body = given(
            customer_id=customer_id,
            feature_id=feature_id,
            event_name=event_name,
            value=signed(value),
            entity_id=entity_id,
            properties=properties,
            overage_behavior=overage_behavior,
            timestamp=timestamp,
        )
        return await self._caller.read(
            models.TrackResult,
            "balances.track",
            body,
            idempotency_key=idempotency_key,
            verified=True,
            about=names_customer(customer_id, entity_id),
        )

    async def track_tokens(
        self,
        customer_id: str,
        *,
        model_id: str,
        input_tokens: int,
        output_tokens: int,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        audio_input_tokens: int | None = None,
        audio_output_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        overage_behavior: Literal["cap", "overflow"] | None = None,
        timestamp: int | None = None,
        idempotency_key: str | None = None,
    ) -> models.TrackResult:
        """Record the tokens of a model call on an AI credit system, which prices them itself.

        Each pool of tokens has its own price; which of them a provider counts inside another is told by its models.

        Raises:
            AmountError: No tokens at all; Autumn would deduct 1 for that.
            Uncertain: As for `track`.
        """
        pools = given(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
            audio_input_tokens=audio_input_tokens,
            audio_output_tokens=audio_output_tokens,
            reasoning_tokens=reasoning_tokens,
        )
        if min(pools.values()) < 0 or not any(pools.values()):
            raise AmountError("track_tokens needs a positive number of tokens")
        body = pools | given(
            customer_id=customer_id,
            feature_id=feature_id,
            entity_id=entity_id,
            model_id=model_id,
            properties=properties,
            overage_behavior=overage_behavior,
            timestamp=timestamp,
        )
        return await self._caller.read(
            models.TrackResult,
            "balances.track_tokens",
            body,
            idempotency_key=idempotency_key,
            verified=True,
            about=names_customer(customer_id, entity_id),
        )

    async def batch_track(self, events: Sequence[models.TrackEvent], *, idempotency_key: str | None = None) -> None:
        """Have up to 1,000 events of past usage recorded soon; Autumn allows 10 such calls a second.

        Autumn takes them all or refuses them all, and records them later: what really moved is in the event log only.

        Raises:
            AmountError: The value of one is zero, not finite or not exact.
            Uncertain: They may have been taken.
        """
        body = [
            given(
                customer_id=event.customer_id,
                feature_id=event.feature_id,
                event_name=event.event_name,
                entity_id=event.entity_id,
                value=signed(event.value),
                properties=event.properties,
                timestamp=event.timestamp,
            )
            for event in events
        ]
        await self._caller.read(Done, "balances.batch_track", body, idempotency_key=idempotency_key)

    async def finalize(
        self,
        lock_id: str,
        action: Literal["confirm", "release"],
        *,
        override_value: Decimal | float | None = None,
        properties: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> models.FinalizeResult:
        """Close a hold: keep what it took, or `override_value` instead, or give it all back.

        The answer says no more than that it is done. A second finalize of one lock does nothing: Autumn answers 400
        "Lock not found", a `RequestRejected`. Never release a hold that may not have arrived: the release would claim
        its id, and the hold that arrives later would stay for ever. `properties` are those of the event, if there is
        one: confirming a hold as it is makes none.

        Raises:
            LockNotClaimable: Another finalize is under way, or had the id before the hold was there.
        """
        body = given(
            lock_id=lock_id,
            action=action,
            override_value=amount(override_value),
            properties=properties,
        )
        return await self._caller.read(
            models.FinalizeResult, "balances.finalize", body, idempotency_key=idempotency_key, verified=True
        )

    async def create(
        self,
        customer_id: str,
        feature_id: str,
        *,
        included_grant: Decimal | float | None = None,
        unlimited: bool | None = None,
        reset: models.Interval | None = None,
        reset_count: int | None = None,
        expires_at: int | None = None,
        entity_id: str | None = None,
        balance_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Grant a balance by itself, apart from any plan; for credits, `grant` is safer.

        Args:
            customer_id: Who gets it.
            feature_id: Of which feature.
            included_grant: How much; Autumn makes nothing of a grant without it that is not `unlimited`.
            unlimited: Without end.
            reset: How often it refills; default: never.
            reset_count: Every how many of these.
            expires_at: Milliseconds since 1970.
            entity_id: One entity of the customer.
            balance_id: A name for it, under which the customer's balances show it until it is used up.
            idempotency_key: Under which Autumn does it once within a day.

        Autumn may erase usage of the second before (its own race), so grant where nothing is being used.

        Raises:
            Uncertain: It may have been granted.
        """
        body = given(
            customer_id=customer_id,
            feature_id=feature_id,
            entity_id=entity_id,
            included_grant=amount(included_grant),
            unlimited=unlimited,
            reset=None if reset is None else given(interval=reset, interval_count=reset_count),
            expires_at=expires_at,
            balance_id=balance_id,
        )
        await self._caller.read(Done, "balances.create", body, idempotency_key=idempotency_key)

    async def grant(
        self,
        customer_id: str,
        feature_id: str,
        credits: Decimal | float,  # noqa: A002 - Autumn's own word
        *,
        key: str,
        expires_at: int | None = None,
        entity_id: str | None = None,
    ) -> bool:
        """Give a customer credits once, however often this is called with the same `key`.

        The key names the reason, such as `welcome` or `invoice:4711`, for this customer and feature; it becomes the id
        of the balance, and the idempotency key is made from it. True says that this call has granted, False that an
        earlier one had. An unknown outcome is looked up in the customer's balances, and raised where they do not show
        it: call again later, with the same key.

        Two things prove an earlier grant: Autumn's memory of keys, for a day, and the balance, until it is used up. Who
        calls again after a day for a grant that may be used up has to remember the key.

        Raises:
            AmountError: Not a positive, exact amount.
            Uncertain: Nobody can tell yet.
        """
        units = amount(credits, allow_zero=False)
        if await self._has_grant(customer_id, feature_id, key, entity_id):
            return False
        body = given(
            customer_id=customer_id,
            feature_id=feature_id,
            entity_id=entity_id,
            included_grant=units,
            expires_at=expires_at,
            balance_id=key,
        )
        try:
            await self._caller.read(Done, "balances.create", body, idempotency_key=_key_of(body))
        except Uncertain as error:
            if await self._has_grant(customer_id, feature_id, key, entity_id):
                return not isinstance(error, DuplicateRequest)
            raise
        return True

    async def _has_grant(self, customer_id: str, feature_id: str, key: str, entity_id: str | None) -> bool:
        owner: models.CustomerRecord | models.EntityRecord
        if entity_id is None:
            body, about = {"customer_id": customer_id}, is_record_of(customer_id)
            owner = await self._caller.read(
                models.CustomerRecord, "customers.get", body, repeat=Repeat.IDEMPOTENT, about=about
            )
        else:
            body = {"customer_id": customer_id, "entity_id": entity_id}
            owner = await self._caller.read(
                models.EntityRecord,
                "entities.get",
                body,
                repeat=Repeat.IDEMPOTENT,
                about=is_entity(customer_id, entity_id),
            )
        balance = owner.balances.get(feature_id)
        return balance is not None and any(part.id == key for part in balance.breakdown)

    async def update(
        self,
        customer_id: str,
        feature_id: str,
        *,
        remaining: Decimal | float | None = None,
        add_to_balance: Decimal | float | None = None,
        usage: Decimal | float | None = None,
        included_grant: Decimal | float | None = None,
        next_reset_at: int | None = None,
        expires_at: int | None = None,
        interval: models.Interval | None = None,
        entity_id: str | None = None,
        balance_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Correct a balance by hand: set `remaining` or `usage`, or add to it; with `balance_id`, just that grant.

        `remaining` and `usage` overwrite what is taken at the same moment. `add_to_balance`, which may be negative,
        does not, but needs a key where it could be called twice.

        Raises:
            ValueError: More than one of `remaining`, `add_to_balance` and `usage`.
            Uncertain: It may have been changed.
        """
        if sum(value is not None for value in (remaining, add_to_balance, usage)) > 1:
            raise ValueError("balances.update takes one of remaining, add_to_balance and usage")
        body = given(
            customer_id=customer_id,
            feature_id=feature_id,
            entity_id=entity_id,
            remaining=amount(remaining),
            add_to_balance=None if add_to_balance is None else signed(add_to_balance),
            usage=amount(usage),
            included_grant=amount(included_grant),
            next_reset_at=next_reset_at,
            expires_at=expires_at,
            interval=interval,
            balance_id=balance_id,
        )
        await self._caller.read(Done, "balances.update", body, idempotency_key=idempotency_key)

    async def delete(
        self,
        customer_id: str,
        *,
        feature_id: str | None = None,
        balance_id: str | None = None,
        entity_id: str | None = None,
    ) -> None:
        """Take balances away: the one with `balance_id`, or those of the feature, also those that a free plan gave.

        Raises:
            RequestRejected: 409 where the balance is paid for.
        """
        body = given(customer_id=customer_id, feature_id=feature_id, balance_id=balance_id, entity_id=entity_id)
        await self._caller.read(Done, "balances.delete", body)


def _key_of(grant: Mapping[str, Any]) -> str:
    """Make the idempotency key of a grant: one namespace holds those of all customers, and a header takes ASCII."""
    named = [grant.get(name) for name in ("customer_id", "entity_id", "feature_id", "balance_id")]
    return f"grant:{hashlib.sha256(repr(named).encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
