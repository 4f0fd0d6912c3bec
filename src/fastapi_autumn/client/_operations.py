"""The operations, one explicit method each, with Autumn's own names for operations and fields."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from fastapi_autumn import models
from fastapi_autumn.client._calls import Caller, Repeat
from fastapi_autumn.errors import AmountError
from fastapi_autumn.pricing import credits, to_json_number  # noqa: A004 - Autumn's own word for the unit

__all__ = ["Balances", "Billing", "Customers", "Events", "Features", "Plans"]


class Customers:
    """The operations `customers.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get_or_create(
        self, customer: models.Customer, *, expand: Sequence[str] | None = None
    ) -> models.CustomerRecord:
        """Make sure that the customer exists and return them; auto-enabled plans are attached on creation."""
        body = _given(
            customer_id=customer.id,
            name=customer.name,
            email=customer.email,
            fingerprint=customer.fingerprint,
            metadata=customer.metadata,
            expand=expand,
        )
        return await self._caller.read(
            models.CustomerRecord,
            "customers.get_or_create",
            body,
            repeat=Repeat.IDEMPOTENT,
            about=(customer.id, None),
        )

    async def get(self, customer_id: str, *, expand: Sequence[str] | None = None) -> models.CustomerRecord:
        """Return one customer.

        Raises:
            CustomerNotFound: There is none with this id.
        """
        body = _given(customer_id=customer_id, expand=expand)
        return await self._caller.read(
            models.CustomerRecord, "customers.get", body, repeat=Repeat.IDEMPOTENT, about=(customer_id, None)
        )

    async def list(self, *, start_cursor: str = "", limit: int = 50, search: str | None = None) -> models.CustomerPage:
        """Return one page of customers, newest first."""
        body = _given(start_cursor=start_cursor, limit=limit, search=search)
        return await self._caller.read(models.CustomerPage, "customers.list", body, repeat=Repeat.IDEMPOTENT)

    async def update(
        self,
        customer_id: str,
        *,
        name: str | None = None,
        email: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        billing_controls: Mapping[str, Any] | None = None,
    ) -> models.CustomerRecord:
        """Change what is given and leave the rest."""
        body = _given(
            customer_id=customer_id, name=name, email=email, metadata=metadata, billing_controls=billing_controls
        )
        return await self._caller.read(
            models.CustomerRecord, "customers.update", body, repeat=Repeat.IDEMPOTENT, about=(customer_id, None)
        )


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
        body = _given(
            customer_id=customer_id,
            feature_id=feature_id,
            required_balance=to_json_number(credits(required_balance, allow_zero=True)),
            send_event=send_event or None,
            lock=_lock_body(lock),
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
            about=(customer_id, entity_id),
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
        idempotency_key: str | None = None,
    ) -> models.TrackResult:
        """Record usage that has happened; a negative `value` gives credits back.

        Autumn takes no more than there is unless `overage_behavior` is "overflow", and gives back no more than was
        used; `deductions` says what really moved. Repeated only when nothing was done, with or without a key.

        Raises:
            Uncertain: It may have been recorded. `NotVerified`: Autumn put it off (202), `DuplicateRequest`: Autumn has
                had this `idempotency_key`; neither says that anything moved.
        """
        body = _given(
            customer_id=customer_id,
            feature_id=feature_id,
            event_name=event_name,
            value=_signed(value),
            entity_id=entity_id,
            properties=properties,
            overage_behavior=overage_behavior,
        )
        return await self._caller.read(
            models.TrackResult,
            "balances.track",
            body,
            idempotency_key=idempotency_key,
            verified=True,
            about=(customer_id, entity_id),
        )

    async def track_tokens(
        self,
        customer_id: str,
        *,
        model_id: str,
        input_tokens: int,
        output_tokens: int,
        cache_read_tokens: int | None = None,
        feature_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> models.TrackResult:
        """Record the tokens of a model call on an AI credit system, which prices them itself.

        Raises:
            AmountError: No tokens at all; Autumn would deduct 1 for that.
        """
        if min(input_tokens, output_tokens, cache_read_tokens or 0) < 0 or not (
            input_tokens or output_tokens or cache_read_tokens
        ):
            raise AmountError("track_tokens needs a positive number of tokens")
        body = _given(
            customer_id=customer_id,
            feature_id=feature_id,
            model_id=model_id,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            properties=properties,
        )
        return await self._caller.read(
            models.TrackResult,
            "balances.track_tokens",
            body,
            idempotency_key=idempotency_key,
            verified=True,
            about=(customer_id, None),
        )

    async def finalize(
        self,
        lock_id: str,
        action: Literal["confirm", "release"],
        *,
        override_value: Decimal | float | None = None,
        idempotency_key: str | None = None,
    ) -> models.FinalizeResult:
        """Close a hold: keep what it took, or `override_value` instead, or give it all back.

        The answer says no more than that it is done. A second finalize of one lock does nothing: Autumn answers 400
        "Lock not found", a `RequestRejected`. Never release a hold that may not have arrived: the release would claim
        its id, and the hold that arrives later would stay for ever.

        Raises:
            LockNotClaimable: Another finalize is under way, or had the id before the hold was there.
        """
        body = _given(
            lock_id=lock_id,
            action=action,
            override_value=(
                None if override_value is None else to_json_number(credits(override_value, allow_zero=True))
            ),
        )
        return await self._caller.read(
            models.FinalizeResult, "balances.finalize", body, idempotency_key=idempotency_key, verified=True
        )


class Events:
    """The operations `events.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(
        self,
        *,
        customer_id: str | None = None,
        feature_id: str | Sequence[str] | None = None,
        start: int | None = None,
        end: int | None = None,
        start_cursor: str = "",
        limit: int = 50,
    ) -> models.EventPage:
        """Return one page of events, newest first; `start` and `end` are in milliseconds.

        Autumn allows 5 of these a second per customer and answers more with 429.
        """
        body = _given(
            customer_id=customer_id,
            feature_id=feature_id,
            custom_range=_given(start=start, end=end) or None,
            start_cursor=start_cursor,
            limit=limit,
        )
        return await self._caller.read(models.EventPage, "events.list", body, repeat=Repeat.IDEMPOTENT)

    async def aggregate(
        self,
        customer_id: str,
        feature_id: str | Sequence[str],
        *,
        entity_id: str | None = None,
        range: str | None = None,  # noqa: A002 - Autumn's own name
        start: int | None = None,
        end: int | None = None,
        filter_by: Mapping[str, str] | None = None,
        bin_size: Literal["hour", "day", "week", "month"] | None = None,
        group_by: str | None = None,
    ) -> models.EventAggregate:
        """Return sums by period, and count and sum in total.

        Args:
            customer_id: Whose events.
            feature_id: Of which features.
            entity_id: Of one entity only.
            range: One of 24h, 7d, 30d, 90d, last_cycle, 1bc, 3bc.
            start: Instead of `range`, with `end`: milliseconds since 1970. The period in which it falls counts whole.
            end: At most 1000 days after `start`.
            filter_by: Property to value; only events that have all of these count. At most five.
            bin_size: How long a period is.
            group_by: Such as `properties.model`.

        The sums are of Autumn's doubles, off in the last digits, and of what was asked for. An event shows up late.

        Raises:
            ValueError: One of `start` and `end` without the other, or both with `range`.
        """
        if (start is None) != (end is None) or (start is not None and range is not None):
            raise ValueError("events.aggregate takes a range, or a start and an end")
        body = _given(
            customer_id=customer_id,
            feature_id=feature_id,
            entity_id=entity_id,
            range=range,
            custom_range=_given(start=start, end=end) or None,
            filter_by=filter_by,
            bin_size=bin_size,
            group_by=group_by,
        )
        return await self._caller.read(models.EventAggregate, "events.aggregate", body, repeat=Repeat.IDEMPOTENT)


class Features:
    """The operations `features.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(self) -> tuple[models.Feature, ...]:
        """Return every feature of the organisation."""
        return (await self._caller.read(_FeatureList, "features.list", {}, repeat=Repeat.IDEMPOTENT)).list


class Plans:
    """The operations `plans.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(self, *, include_archived: bool = False) -> tuple[models.Plan, ...]:
        """Return every plan of the organisation, in its latest version."""
        body = _given(include_archived=include_archived or None)
        return (await self._caller.read(_PlanList, "plans.list", body, repeat=Repeat.IDEMPOTENT)).list


class Billing:
    """The operations `billing.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def attach(
        self,
        customer_id: str,
        plan_id: str,
        *,
        success_url: str | None = None,
        feature_quantities: Mapping[str, int] | None = None,
        redirect_mode: Literal["always", "if_required", "never"] = "if_required",
        no_billing_changes: bool | None = None,
    ) -> models.AttachResult:
        """Put the customer on a plan, or return where they have to go to pay for it.

        Repeated only when nothing was sent: a 429 here is Autumn's guard against two purchases at once.
        """
        quantities = [{"feature_id": id_, "quantity": quantity} for id_, quantity in (feature_quantities or {}).items()]
        body = _given(
            customer_id=customer_id,
            plan_id=plan_id,
            success_url=success_url,
            feature_quantities=quantities or None,
            redirect_mode=redirect_mode,
            no_billing_changes=no_billing_changes,
        )
        return await self._caller.read(
            models.AttachResult, "billing.attach", body, repeat=Repeat.IF_UNREACHED, about=(customer_id, None)
        )

    async def open_customer_portal(self, customer_id: str, *, return_url: str | None = None) -> models.PortalResult:
        """Return the address where the customer manages payment and invoices."""
        body = _given(customer_id=customer_id, return_url=return_url)
        return await self._caller.read(
            models.PortalResult,
            "billing.open_customer_portal",
            body,
            repeat=Repeat.IDEMPOTENT,
            about=(customer_id, None),
        )


class _FeatureList(BaseModel):
    list: tuple[models.Feature, ...]


class _PlanList(BaseModel):
    list: tuple[models.Plan, ...]


def _signed(value: Decimal | float) -> int | float:
    # Decimal's own minus would round, and its comparison trips over NaN.
    negative = value.is_signed() if isinstance(value, Decimal) else value < 0
    if not negative:
        return to_json_number(credits(value))
    return -to_json_number(credits(value.copy_negate() if isinstance(value, Decimal) else -value))


def _lock_body(lock: models.Lock | None) -> dict[str, Any] | None:
    if lock is None:
        return None
    return {"enabled": True, "lock_id": lock.lock_id, "expires_at": lock.expires_at}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
