"""The start page, and what it needs to know."""

import inspect
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse

from demo_app.ledger import ledger
from demo_app.users import TOKENS, current_customer
from fastapi_autumn import Autumn, Customer, ModelPrices
from fastapi_autumn.pricing import Rate

__all__ = ["page_router"]

_PAGE = Path(__file__).with_name("page.html")
_RECENT = 60


def page_router(autumn: Autumn, prices: ModelPrices, *, route: list[Any], stand_in: bool) -> APIRouter:
    """Make the routes. `route` is what answers a chat, to be shown; `stand_in` tells whether the model is one."""
    router = APIRouter(tags=["page"])
    code = "\n\n".join(dedent(inspect.getsource(part)).strip() for part in route)

    @router.get("/", include_in_schema=False)
    async def show_page() -> FileResponse:
        return FileResponse(_PAGE)

    @router.get("/demo")
    async def describe() -> dict[str, Any]:
        """What the page offers: people, models with their prices, and what is real."""
        return {
            "users": [{"token": token, "name": customer.name} for token, customer in TOKENS.items()],
            # What costs what it uses has no price to show, or to run out by.
            "models": [
                {"name": name, "credits": float(price)}
                for name, price in prices.models.items()
                if not isinstance(price, Rate)
            ],
            "stand_in": stand_in,
            "emulator": autumn.settings.emulator,
            "event_delay": autumn.settings.event_delay,
            "code": code,
        }

    @router.get("/demo/ledger")
    async def show_ledger(customer: Annotated[Customer, Depends(current_customer)]) -> list[dict[str, Any]]:
        """What the customer got, paid and was given back, newest first, a charge and its refund as one."""
        record = await autumn.client.customers.get(customer.id)
        page = await autumn.client.events.list(customer_id=customer.id, limit=_RECENT)
        return ledger(record, page.list, record.balances.get("ai_credits"))

    return router
