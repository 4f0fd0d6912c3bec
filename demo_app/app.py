"""The application: `uvicorn --factory demo_app.app:create_app`, or `python -m demo_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from demo_app.chat import chat_router, provider_failed, shown_code
from demo_app.controls import Recent, controls_router
from demo_app.page import page_router
from demo_app.providers import ModelSettings, Provider, ProviderError, provider_for
from demo_app.users import identify
from fastapi_autumn import Autumn, AutumnMiddleware, AutumnSettings, ModelPrices
from fastapi_autumn.catalog import Catalog

__all__ = ["create_app"]

_HERE = Path(__file__).parent


def create_app(settings: AutumnSettings | None = None, model: ModelSettings | None = None) -> FastAPI:
    """Make the application; settings that are not given come from the environment and `.env`.

    Raises:
        ConfigurationError: Neither a key nor an emulator, or a price that is none.
    """
    prices = ModelPrices.from_toml(_HERE / "prices.toml")
    settings = settings or AutumnSettings.load()
    if settings.emulator and "event_delay" not in settings.model_fields_set:
        # The emulator's log is complete at once, and nobody wants to watch for two minutes what a lost answer came to.
        settings = settings.model_copy(update={"event_delay": 5.0})
    autumn = Autumn(settings, prices=prices, catalog=Catalog.load(_HERE / "autumn_config.py"))
    model = model or ModelSettings()
    recent = Recent()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Provider]]:
        async with autumn.running(), provider_for(model) as provider:
            with recent.listening():
                yield {"provider": provider}

    app = FastAPI(title="A metered AI service", lifespan=lifespan)
    app.add_middleware(AutumnMiddleware, autumn=autumn, paths=["/ai"], identify=identify)
    app.add_exception_handler(ProviderError, provider_failed)
    chat = chat_router(prices)
    app.include_router(chat)
    app.include_router(autumn.router(prefix="/billing", customer=identify))
    app.include_router(page_router(autumn, prices, route=shown_code(chat), stand_in=model.base_url is None))
    app.include_router(controls_router(autumn, recent))
    return app
