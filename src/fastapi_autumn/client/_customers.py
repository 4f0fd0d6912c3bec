"""The operations `customers.*`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from fastapi_autumn import models
from fastapi_autumn.client._bodies import UNCHANGED, Done, Unchanged, changed, given, is_record_of
from fastapi_autumn.client._calls import Caller, Repeat, parse
from fastapi_autumn.errors import RequestRejected
from fastapi_autumn.transports import Answer

__all__ = ["Confirmation", "Customers"]

_log = logging.getLogger("fastapi_autumn")

_REMEMBERED = 10_000
_GET_OR_CREATE = "customers.get_or_create"


class Customers:
    """The operations `customers.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._refused_emails: set[str | None] = set()

    async def get_or_create(
        self, customer: models.Customer, *, expand: Sequence[str] | None = None
    ) -> models.CustomerRecord:
        """Make sure that the customer exists and return them; auto-enabled plans are attached on creation."""
        body = _body(customer) | given(expand=expand)
        return await self._caller.read(
            models.CustomerRecord, _GET_OR_CREATE, body, repeat=Repeat.IDEMPOTENT, about=is_record_of(customer.id)
        )

    async def confirm(self, customer: models.Customer) -> "Confirmation":
        """Make sure that the customer exists, and read no more of the answer than is needed for that.

        An e-mail address that Autumn refuses is left out, from then on: the customer can be charged all the same.
        """
        if customer.email in self._refused_emails:
            customer = replace(customer, email=None)
        try:
            return await self._confirm(customer)
        except RequestRejected as error:
            if customer.email is None or error.status != HTTPStatus.BAD_REQUEST or "email" not in error.message:
                raise
            if len(self._refused_emails) >= _REMEMBERED:
                self._refused_emails.clear()
            self._refused_emails.add(customer.email)
            _log.warning("customer %s is kept at Autumn without their e-mail address, which it refuses", customer.id)
            return await self._confirm(replace(customer, email=None))

    async def _confirm(self, customer: models.Customer) -> "Confirmation":
        body = _body(customer)
        answer = await self._caller.ask(
            _GET_OR_CREATE, body, idempotency_key=None, repeat=Repeat.IDEMPOTENT, is_named=True
        )
        if answer.body.startswith(b'{"id":%b,' % to_json(customer.id)) and b'"usage_limits"' not in answer.body:
            # As Autumn writes it, and as nearly always: whom it is about stands first, and nothing else matters.
            return Confirmation(has_usage_limit=False, answer=answer)
        about = is_record_of(customer.id)
        confirmed = self._caller.understand(_Confirmed, _GET_OR_CREATE, answer, about=about)
        return Confirmation(has_usage_limit=bool(confirmed.billing_controls.usage_limits), answer=answer)

    async def get(self, customer_id: str, *, expand: Sequence[str] | None = None) -> models.CustomerRecord:
        """Return one customer.

        Raises:
            CustomerNotFound: There is none with this id.
        """
        body = given(customer_id=customer_id, expand=expand)
        return await self._caller.read(
            models.CustomerRecord, "customers.get", body, repeat=Repeat.IDEMPOTENT, about=is_record_of(customer_id)
        )

    async def list(self, *, start_cursor: str = "", limit: int = 50, search: str | None = None) -> models.CustomerPage:
        """Return one page of customers, newest first."""
        body = given(start_cursor=start_cursor, limit=limit, search=search)
        return await self._caller.read(models.CustomerPage, "customers.list", body, repeat=Repeat.IDEMPOTENT)

    async def update(
        self,
        customer_id: str,
        *,
        name: str | Unchanged | None = UNCHANGED,
        email: str | Unchanged | None = UNCHANGED,
        fingerprint: str | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, Any] | Unchanged | None = UNCHANGED,
        billing_controls: Mapping[str, Any] | Unchanged = UNCHANGED,
    ) -> models.CustomerRecord:
        """Change what is given and leave the rest; None empties a field."""
        body = changed(
            customer_id=customer_id,
            name=name,
            email=email,
            fingerprint=fingerprint,
            metadata=metadata,
            billing_controls=billing_controls,
        )
        return await self._caller.read(
            models.CustomerRecord, "customers.update", body, repeat=Repeat.IDEMPOTENT, about=is_record_of(customer_id)
        )

    async def delete(self, customer_id: str, *, delete_in_stripe: bool = False) -> None:
        """Delete the customer with all that they have.

        Repeated only when nothing was sent: they may have come back in between.

        Raises:
            CustomerNotFound: There is none with this id.
        """
        body = given(customer_id=customer_id, delete_in_stripe=delete_in_stripe)
        await self._caller.read(Done, "customers.delete", body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """A customer whom Autumn has. `has_usage_limit` tells whether Autumn limits their use of a feature."""

    has_usage_limit: bool
    answer: Answer = field(repr=False)

    def record(self) -> models.CustomerRecord:
        """Read the rest of the answer.

        Raises:
            UnexpectedAnswer: It has another shape than documented.
        """
        return parse(models.CustomerRecord, _GET_OR_CREATE, self.answer)


class _Confirmed(BaseModel):
    id: str
    billing_controls: models.BillingControls = models.BillingControls()


def _body(customer: models.Customer) -> dict[str, Any]:
    return given(
        customer_id=customer.id,
        name=customer.name,
        email=customer.email,
        fingerprint=customer.fingerprint,
        metadata=customer.metadata,
    )
