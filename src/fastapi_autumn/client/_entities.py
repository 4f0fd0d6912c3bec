"""The operations `entities.*`: seats, workspaces, whatever has a share of a customer's balance."""

from collections.abc import Mapping
from typing import Any

from fastapi_autumn import models
from fastapi_autumn.client._bodies import Done, given, is_entity
from fastapi_autumn.client._calls import Caller, Repeat

__all__ = ["Entities"]


class Entities:
    """The operations `entities.*`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        customer_id: str,
        entity_id: str,
        *,
        feature_id: str,
        name: str | None = None,
        billing_controls: Mapping[str, Any] | None = None,
    ) -> models.EntityRecord:
        """Create an entity; `feature_id` is the feature of which it uses up one, such as seats.

        Raises:
            RequestRejected: 409 `entity_already_exists`.
        """
        body = given(
            customer_id=customer_id,
            entity_id=entity_id,
            feature_id=feature_id,
            name=name,
            billing_controls=billing_controls,
        )
        return await self._read("entities.create", body, repeat=Repeat.IF_NOT_SENT)

    async def get(self, customer_id: str, entity_id: str) -> models.EntityRecord:
        """Return one entity, with what it has of its own and through its customer.

        Raises:
            RequestRejected: 404 `entity_not_found`.
        """
        body = given(customer_id=customer_id, entity_id=entity_id)
        return await self._read("entities.get", body, repeat=Repeat.IDEMPOTENT)

    async def list(
        self,
        *,
        customer_id: str | None = None,
        start_cursor: str = "",
        limit: int = 50,
        search: str | None = None,
    ) -> models.EntityPage:
        """Return one page of entities."""
        body = given(customer_id=customer_id, start_cursor=start_cursor, limit=limit, search=search)
        return await self._caller.read(models.EntityPage, "entities.list", body, repeat=Repeat.IDEMPOTENT)

    async def update(
        self, customer_id: str, entity_id: str, *, billing_controls: Mapping[str, Any]
    ) -> models.EntityRecord:
        """Change an entity's billing controls."""
        body = given(customer_id=customer_id, entity_id=entity_id, billing_controls=billing_controls)
        return await self._read("entities.update", body, repeat=Repeat.IDEMPOTENT)

    async def delete(self, customer_id: str, entity_id: str) -> None:
        """Delete an entity and give back its use of the feature. Repeated only when nothing was sent."""
        body = given(customer_id=customer_id, entity_id=entity_id)
        await self._caller.read(Done, "entities.delete", body)

    async def _read(self, operation: str, body: Mapping[str, Any], *, repeat: Repeat) -> models.EntityRecord:
        about = is_entity(body["customer_id"], body["entity_id"])
        return await self._caller.read(models.EntityRecord, operation, body, repeat=repeat, about=about)
