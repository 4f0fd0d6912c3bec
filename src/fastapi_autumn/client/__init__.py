"""Autumn's API as a typed, asynchronous client."""

from typing import TYPE_CHECKING

from pydantic import SecretStr

from fastapi_autumn.client._calls import Caller, Repeat
from fastapi_autumn.client._operations import Balances, Billing, Customers, Events, Features, Plans
from fastapi_autumn.client._pressure import Breaker, Limiter
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports import Transport, transport_for

if TYPE_CHECKING:
    import httpx  # for an annotation only: transports.py is the one module that depends on it

__all__ = ["AutumnClient", "Repeat"]


class AutumnClient:
    """Talk to Autumn.

    Args:
        settings: Where Autumn is, the key, time-outs and retries.
        http_client: Your own `httpx.AsyncClient` (proxies, certificates, hooks); you close it.
        transport: Something else that carries requests, such as `AsgiTransport(emulator)`; you close it.
        secret_key: Used instead of the key of the settings.

    Every method raises the errors drawn in `fastapi_autumn.errors`: `RequestRejected` for a no with Autumn's code, and
    one kind of `Unavailable` for anything that is neither a yes nor a no.

    Raises:
        ConfigurationError: No secret key, or both a client and a transport.
    """

    def __init__(
        self,
        settings: AutumnSettings,
        *,
        http_client: "httpx.AsyncClient | None" = None,
        transport: Transport | None = None,
        secret_key: str | None = None,
    ) -> None:
        key = settings.secret_key if secret_key is None else SecretStr(secret_key)
        if key is None:
            raise ConfigurationError("AutumnClient needs a secret key: set AUTUMN_SECRET_KEY.")
        if transport is not None and http_client is not None:
            raise ConfigurationError("AutumnClient takes an http_client or a transport, not both.")
        self._owns_transport = transport is None
        self._transport = transport or transport_for(settings, http_client=http_client)
        caller = Caller(
            self._transport,
            secret_key=key,
            max_retries=settings.max_retries,
            limiter=Limiter(settings.max_concurrency, waiting=settings.max_waiting, patience=settings.timeout),
            breaker=Breaker(),
        )
        self.call = caller.call
        self.get = caller.get
        self.customers = Customers(caller)
        self.balances = Balances(caller)
        self.events = Events(caller)
        self.features = Features(caller)
        self.plans = Plans(caller)
        self.billing = Billing(caller)

    async def aclose(self) -> None:
        """Close the connections that this client opened."""
        if self._owns_transport:
            await self._transport.aclose()
