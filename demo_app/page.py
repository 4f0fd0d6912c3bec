"""The start page, and what it needs to know."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import FileResponse

from demo_app.users import TOKENS, current_customer
from fastapi_autumn import Autumn, Customer, ModelPrices
from fastapi_autumn.pricing import Price, Rate

__all__ = ["page_router"]

_PAGE = Path(__file__).with_name("page.html")
_RECENT = 12


def page_router(autumn: Autumn, prices: ModelPrices, *, stand_in: bool) -> APIRouter:
    """Make the routes. `stand_in` tells whether the model is one, which can fail on request."""
    router = APIRouter(tags=["page"])

    @router.get("/", include_in_schema=False)
    async def show_page() -> FileResponse:
        return FileResponse(_PAGE)

    @router.get("/demo")
    async def describe() -> dict[str, Any]:
        """What the page offers: people, models with their prices, and what is real."""
        return {
            "users": [{"token": token, "name": customer.name} for token, customer in TOKENS.items()],
            "models": [{"name": name, "credits": _shown(price)} for name, price in prices.models.items()],
            "stand_in": stand_in,
            "emulator": autumn.settings.emulator,
        }

    @router.get("/demo/activity")
    async def list_activity(customer: Annotated[Customer, Depends(current_customer)]) -> list[dict[str, Any]]:
        """What Autumn's own event log says about the customer, newest first; a refund has a negative value."""
        page = await autumn.client.events.list(customer_id=customer.id, limit=_RECENT)
        return [
            {
                "id": event.id,
                "timestamp": event.timestamp,
                "credits": float(event.value),
                "model": event.properties.get("model"),
                "reason": event.properties.get("reason"),
            }
            for event in page.list
        ]

    @router.post("/demo/reset", status_code=204)
    async def start_over() -> None:
        """Forget everybody's plans and usage, which only an emulator does."""
        if not autumn.settings.emulator:
            raise HTTPException(409, "This demo runs on a real Autumn, which forgets nothing.")
        autumn.emulator.reset()

    return router


def _shown(price: Price) -> float | None:
    """What a call costs; a price by tokens is known when it has ended."""
    return None if isinstance(price, Rate) else float(price)
