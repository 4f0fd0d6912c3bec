"""The operations `features.*` and `plans.*` that a service needs; the command `autumn` does the rest."""

from pydantic import BaseModel

from fastapi_autumn import models
from fastapi_autumn.client._bodies import given
from fastapi_autumn.client._calls import Caller, Repeat

__all__ = ["Features", "Plans"]


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
        body = given(include_archived=include_archived or None)
        return (await self._caller.read(_PlanList, "plans.list", body, repeat=Repeat.IDEMPOTENT)).list

    async def get(self, plan_id: str, *, version: int | None = None) -> models.Plan:
        """Return one plan, in its latest version or in the one that is asked for."""
        body = given(plan_id=plan_id, version=version)
        return await self._caller.read(models.Plan, "plans.get", body, repeat=Repeat.IDEMPOTENT)


class _FeatureList(BaseModel):
    list: tuple[models.Feature, ...]


class _PlanList(BaseModel):
    list: tuple[models.Plan, ...]
