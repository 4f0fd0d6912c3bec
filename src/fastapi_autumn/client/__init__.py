"""Autumn's API as a typed, asynchronous client."""

from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.client._bodies import UNCHANGED
from fastapi_autumn.client._calls import Caller, Repeat
from fastapi_autumn.client._customers import Confirmation
from fastapi_autumn.client._operations import Operations
from fastapi_autumn.client._pressure import Lane, Limiters
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settings import LIVE_KEYS, AutumnSettings
from fastapi_autumn.transports import Transport, transport_for

if TYPE_CHECKING:
    import httpx  # for an annotation only: transports.py is the one module that depends on it

__all__ = ["UNCHANGED", "AutumnClient", "Confirmation", "Operations", "Repeat"]


class AutumnClient(Operations):
    """Talk to Autumn.

    Args:
        settings: Where Autumn is, the key, time-outs and retries.
        http_client: Your own `httpx.AsyncClient` (proxies, certificates, hooks); you close it.
        transport: Something else that carries requests, such as `AsgiTransport(emulator)`; you close it.
        secret_key: Used instead of the key of the settings.
        machine: Whose clock and chance are used.

    Every method raises the errors drawn in `fastapi_autumn.errors`: `RequestRejected` for a no in Autumn's own words,
    and one kind of `Unavailable` for anything that is neither a yes nor a no. The answer of a method that is about one
    customer names that customer, or it is an `UnexpectedAnswer`.

        async with AutumnClient(AutumnSettings.load()) as client:
            print((await client.customers.get("ada")).balances)

    Raises:
        ConfigurationError: No secret key, a live key that would travel unencrypted, or both a client and a transport.
    """

    def __init__(
        self,
        settings: AutumnSettings,
        *,
        http_client: "httpx.AsyncClient | None" = None,
        transport: Transport | None = None,
        secret_key: str | None = None,
        machine: Machine = MACHINE,
    ) -> None:
        key = settings.secret_key if secret_key is None else SecretStr(secret_key)
        if key is None:
            raise ConfigurationError("AutumnClient needs a secret key: set AUTUMN_SECRET_KEY.")
        if transport is not None and http_client is not None:
            raise ConfigurationError("AutumnClient takes an http_client or a transport, not both.")
        if transport is None and key.get_secret_value().startswith(LIVE_KEYS):
            settings.require_encryption()
        self._owns_transport = transport is None
        self._transport = transport or transport_for(settings, http_client=http_client)
        caller = Caller(
            self._transport,
            secret_key=key,
            max_retries=settings.max_retries,
            limiters=Limiters(settings.max_concurrency, waiting=settings.max_waiting, patience=settings.timeout),
            machine=machine,
        )
        self._clock = caller.clock
        super().__init__(caller)
        self.front_end = Operations(caller.within(Lane.OTHER))
        """The same operations for a front end, whose failures and floods stay apart from refunds and look-ups."""

    @property
    def knows_the_time(self) -> bool:
        """Whether an answer of Autumn's has told its time of day yet."""
        return self._clock.is_known

    def now_ms(self) -> int:
        """Return Autumn's time of day in milliseconds since 1970; before its first answer, this machine's own.

        Learned from the `Date` of each of its answers, right to half a second after one and a tenth after many. In
        between it goes on with a steady clock, so that nothing jumps when this machine's time of day is set.
        """
        return self._clock.now_ms()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that this client opened."""
        if self._owns_transport:
            await self._transport.aclose()
