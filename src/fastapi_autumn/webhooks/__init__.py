"""What Autumn tells: verified, typed, and handled once, however often and to however many workers it is sent.

hooks = autumn.webhooks()

@hooks.on(LimitReached)
async def tell(event: LimitReached) -> None: ...

app.include_router(hooks)
"""

from fastapi_autumn.webhooks._events import (
    AutoTopUpFailed,
    AutoTopUpSucceeded,
    BillingUpdated,
    LimitReached,
    PlanUpdate,
    ProductsUpdated,
    UsageAlert,
    UsageAlertTriggered,
    WebhookEvent,
)
from fastapi_autumn.webhooks._router import WebhookRouter

__all__ = [
    "AutoTopUpFailed",
    "AutoTopUpSucceeded",
    "BillingUpdated",
    "LimitReached",
    "PlanUpdate",
    "ProductsUpdated",
    "UsageAlert",
    "UsageAlertTriggered",
    "WebhookEvent",
    "WebhookRouter",
]
