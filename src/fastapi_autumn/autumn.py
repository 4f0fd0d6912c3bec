"""`Autumn`: the one object an application makes. It wires the rooms together and knows when they live."""

import asyncio
import hashlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic_core import from_json

from fastapi_autumn._doors import Doors
from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn._openapi import document
from fastapi_autumn._refusals import Refusals
from fastapi_autumn._scope import Runtime
from fastapi_autumn._sync import SyncDoors
from fastapi_autumn.charge import Charges, Delivery, ObservingCharges
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.customers import KnownCustomers
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.pricing import Prices, price_list
from fastapi_autumn.router import billing_router
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports import AsgiTransport, Transport
from fastapi_autumn.webhooks import WebhookRouter

if TYPE_CHECKING:
    import httpx

    from fastapi_autumn.catalog import Catalog
    from fastapi_autumn.emulator import Emulator
    from fastapi_autumn.settlement.messages import Messages
    from fastapi_autumn.settlement.outbox import Outbox
    from fastapi_autumn.settlement.replies import Replies
    from fastapi_autumn.settlement.sender import Sender
    from fastapi_autumn.settlement.sql import SqlStore
    from fastapi_autumn.settlement.store import Account, Store

__all__ = ["Autumn", "Prices", "default_catalog"]

_log = logging.getLogger("fastapi_autumn")

_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0


class Autumn(Doors):
    """Autumn, for one service.

    Args:
        settings: Default: the environment and `.env`.
        prices: What a call of each model costs, in credits: a mapping, a TOML file, a `ModelPrices`, or a function
            from the model's name to its price (None for a model without one). Default: the file in `AUTUMN_PRICES`.
        catalog: Features and plans for an emulator that has none yet. Default: `autumn_config.py` in the working
            directory, or else the example of the documentation.
        http_client: Your own `httpx.AsyncClient` for the calls to Autumn; you close it.
        transport: Something else that carries them.
        refusals: How refusals are worded; see `AutumnMiddleware`.
        machine: Clocks, chance and ids, for tests.

    Raises:
        ConfigurationError: No key and no emulator, a key that cannot be one, or no price list.
    """

    def __init__(
        self,
        settings: AutumnSettings | None = None,
        *,
        prices: Prices | None = None,
        catalog: Any = None,
        http_client: "httpx.AsyncClient | None" = None,
        transport: Transport | None = None,
        refusals: Refusals | None = None,
        machine: Machine = MACHINE,
    ) -> None:
        self._machine = machine
        self.settings = settings or AutumnSettings.load()
        self.settings.require_backend()
        self.prices = price_list(prices if prices is not None else self.settings.prices)
        self.refusals = refusals
        self._catalog = catalog
        self._http_client = http_client
        self._transport = transport
        self._running: dict[asyncio.AbstractEventLoop, _Running] = {}

    @cached_property
    def emulator(self) -> "Emulator":
        """The emulator of this process.

        Raises:
            ConfigurationError: The settings do not ask for one.
        """
        if not self.settings.emulator:
            raise ConfigurationError("There is no emulator in this process: set AUTUMN_EMULATOR=true to have one.")
        from .emulator import Emulator  # noqa: PLC0415 - not loaded by services that talk to the real Autumn

        if not sys.stderr.isatty():
            _log.warning(
                "AUTUMN_EMULATOR is on, and nobody watches a terminal: an emulator in this process answers in Autumn's "
                "place. No customer pays for anything, and the credits are those of %s. Set AUTUMN_SECRET_KEY and turn "
                "AUTUMN_EMULATOR off where customers are served.",
                self.settings.emulator_path,
            )
        return Emulator(self.settings.emulator_path, catalog=self._catalog or default_catalog())

    @cached_property
    def sync(self) -> SyncDoors:
        """The same for code that is not async: `with autumn.sync.charge(customer, model) as charge:`."""
        return SyncDoors(self)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Run beside the application: `FastAPI(lifespan=autumn.lifespan)`, or `async with` it inside your own.

        Shutting down delivers what waits in the outbox, ends what is under way and writes what is in memory; each step
        takes at most `AUTUMN_SHUTDOWN_TIMEOUT` seconds.
        """
        if hasattr(app, "openapi"):
            self.document(app)
        async with self.running():
            yield

    def document(self, app: Any) -> None:
        """Make `app.openapi()`, and that of mounted applications, list what gates answer. Doing it twice does no harm.

        A running application is documented by itself; a script that exports the document has to call this before.
        """
        document(app, reworded=self.refusals is not None)

    @property
    def runtime(self) -> Runtime | None:
        """What runs in the current event loop, or None."""
        running = self._running.get(asyncio.get_running_loop())
        return running.runtime if running is not None else None

    @property
    def client(self) -> AutumnClient:
        """The client, while the application runs.

        Raises:
            ConfigurationError: It does not; use `lifespan`, or `async with autumn.running() as runtime`.
        """
        return self._now_running.client

    @property
    def outbox(self) -> "Outbox":
        """What still has to be told to Autumn, to list, retry and drop, while the application runs.

        Raises:
            ConfigurationError: As `client`.
        """
        return self._now_running.outbox

    @property
    def _now_running(self) -> Runtime:
        runtime = self.runtime
        if runtime is None:
            raise ConfigurationError("Autumn is not running: use FastAPI(lifespan=autumn.lifespan).")
        return runtime

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        """Have what is needed to charge. The first to enter starts it, the last to leave settles and closes it."""
        loop = asyncio.get_running_loop()
        running = self._running.setdefault(loop, _Running())
        running.users += 1
        try:
            async with running.starting:
                if running.runtime is None:
                    await self._start(running)
            assert running.runtime is not None  # noqa: S101 - for the type checker
            yield running.runtime
        finally:
            running.users -= 1
            if not running.users:
                del self._running[loop]
                await self._stop(running)

    def get_model_credits(self, model: str) -> Decimal | None:
        """Return what one call of `model` costs, or None for a model without a price."""
        return self.prices.get_model_credits(model)

    def router(
        self,
        *,
        prefix: str = "/billing",
        customer: Callable[..., Any] | None = None,
        plans: Collection[str] | None = None,
        public_plans: bool = False,
    ) -> APIRouter:
        """Return routes with which a front end shows balance, plans and usage, and sends customers to pay.

        `customer` is a FastAPI dependency that returns who is calling; default: whom the middleware identified if it
        covers `prefix`, else Starlette's `request.user`. `plans` are the ids of the plans on offer, to be shown and to
        be bought, in this order; default: all but those that cost nothing and that Autumn does not give to everybody.
        `public_plans` shows them to anybody, signed in or not.
        """
        emulator = (lambda: self.emulator) if self.settings.emulator else None
        return billing_router(
            self, prefix=prefix, customer=customer, plans=plans, public_plans=public_plans, emulator=emulator
        )

    def webhooks(
        self,
        path: str = "/webhooks/autumn",
        *,
        secrets: Sequence[str] | None = None,
        name: str = "webhooks",
        tolerance: float = 300.0,
    ) -> WebhookRouter:
        """Return a router with the route that Autumn's webhooks call; its `on` registers handlers.

        `secrets` are the endpoint's signing secrets, several while one is rotated; default: `AUTUMN_WEBHOOK_SECRET`, or
        with an emulator in this process the emulator's. `name` says who handles each message once: services with an
        endpoint each that share an outbox's database need different ones. A message signed more than `tolerance`
        seconds from now is refused.

        Raises:
            ConfigurationError: There is no secret, or one that cannot be one.
        """
        found = secrets or [secret.get_secret_value() for secret in self.settings.webhook_secret]
        if not found and self.settings.emulator:
            from .emulator import EMULATOR_WEBHOOK_SECRET  # noqa: PLC0415 - as above

            found = [EMULATOR_WEBHOOK_SECRET]
        return WebhookRouter(self, path=path, secrets=found, name=name, tolerance=tolerance)

    async def settled(self) -> None:
        """Wait until Autumn has been told everything that is due, as a test wants before it looks at a balance.

        What waits for Autumn's event log is due later, after `AUTUMN_EVENT_DELAY`; this waits for that as well.

        Raises:
            ConfigurationError: As `client`.
        """
        running = self._now_running
        await running.customers.drain()
        outbox = running.outbox
        await outbox.flush()
        while (due_at := await outbox.store.next_due_at()) is not None:
            outbox.has_due.set()
            await asyncio.sleep(min(1.0, max(0.01, (due_at - outbox.now()) / 1000)))
            await outbox.flush()

    async def _start(self, running: "_Running") -> None:
        # Here and not above: SQLAlchemy is most of what this package costs to import.
        from fastapi_autumn.settlement.outbox import Outbox  # noqa: PLC0415
        from fastapi_autumn.settlement.rescue import Rescuer  # noqa: PLC0415
        from fastapi_autumn.settlement.sender import Sender  # noqa: PLC0415

        settings, machine = self.settings, self._machine
        within = settings.shutdown_timeout
        async with AsyncExitStack() as stack:
            client = self._make_client()
            stack.push_async_callback(client.aclose)
            store = self._make_store()
            outbox = Outbox(store, lease=settings.outbox_lease, machine=machine, now=client.now_ms)
            await outbox.start()
            stack.push_async_callback(outbox.stop, within=within)
            delivery = Delivery(settings, client=client, machine=machine)
            sender = Sender(outbox, delivery.deliver, machine=machine)
            sender.start()
            stack.push_async_callback(sender.stop, within=within)
            rescuer = Rescuer(
                outbox,
                delivery.find_unwritten,
                silence=settings.silence,
                knows_the_time=delivery.knows_the_time,
                machine=machine,
            )
            rescuer.start()
            stack.push_async_callback(rescuer.stop, within=within)
            if not settings.emulator and store.account.organisation is None:
                learning = asyncio.create_task(_learn_the_organisation(client, store), name="autumn-account")
                stack.push_async_callback(_cancel, learning)
            customers = KnownCustomers(client, ttl=settings.ensure_ttl)
            kind = ObservingCharges if settings.observes else Charges
            charges = kind(settings, client=client, customers=customers, prices=self.prices, outbox=outbox)
            stack.push_async_callback(_deliver_the_rest, customers, sender, within=within)
            running.runtime = Runtime(
                client, customers, charges, outbox, self._make_replies(store), self._make_messages(store)
            )
            # Whatever fails at the end, each of these is still stopped, in the opposite order.
            running.stack = stack.pop_all()

    async def _stop(self, running: "_Running") -> None:
        if running.stack is not None:
            await running.stack.aclose()

    def _make_store(self) -> "SqlStore":
        from fastapi_autumn.settlement.sql import SqlStore  # noqa: PLC0415 - as above

        settings = self.settings
        return SqlStore(
            settings.outbox_url, self._account(), recreate_after=settings.outbox_lease, machine=self._machine
        )

    def _make_replies(self, store: "SqlStore") -> "Replies":
        from fastapi_autumn.settlement.sql_replies import SqlReplies  # noqa: PLC0415 - as above

        return SqlReplies(store, machine=self._machine)

    def _make_messages(self, store: "SqlStore") -> "Messages":
        from fastapi_autumn.settlement.sql_messages import SqlMessages  # noqa: PLC0415 - as above

        return SqlMessages(store, machine=self._machine)

    def _account(self) -> "Account":
        """Say whose rows in the outbox are ours. The key stays out of it: what is stored is a digest of it."""
        from fastapi_autumn.settlement.store import Account  # noqa: PLC0415 - as above

        settings = self.settings
        if settings.emulator:
            origin = f"emulator at {settings.emulator_path.resolve()}"
            return Account(_digest(origin), origin, "emulator", "emulator")
        key = "" if settings.secret_key is None else settings.secret_key.get_secret_value()
        environment = "live" if settings.is_live else "sandbox"
        return Account(_digest(settings.base_url, key), settings.base_url, environment)

    def _make_client(self) -> AutumnClient:
        if self._transport is not None or not self.settings.emulator:
            return AutumnClient(
                self.settings, http_client=self._http_client, transport=self._transport, machine=self._machine
            )
        from .emulator import EMULATOR_KEY  # noqa: PLC0415 - as above

        transport = AsgiTransport(self.emulator, timeout=self.settings.timeout)
        return AutumnClient(self.settings, transport=transport, secret_key=EMULATOR_KEY, machine=self._machine)


@dataclass(slots=True)
class _Running:
    """What runs in one event loop."""

    users: int = 0
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    runtime: Runtime | None = None
    stack: AsyncExitStack | None = None


async def _deliver_the_rest(customers: KnownCustomers, sender: "Sender", *, within: float) -> None:
    """Tell Autumn what is due, as far as that is possible within a time. The outbox keeps the rest."""
    try:
        async with asyncio.timeout(within):
            await customers.drain()
            await sender.drain()
    except TimeoutError:
        _log.warning("The service stopped before everything was delivered. The rest waits in the outbox.")
    except Exception as error:  # noqa: BLE001 - a database that is away must not keep the rest from being stopped
        _log.error("The outbox could not be delivered from (%s). What it has waits there.", type(error).__name__)


async def _learn_the_organisation(client: AutumnClient, store: "Store") -> None:
    """Ask Autumn once whose key this is, so that the rows of an organisation outlive a rotation of its key."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            answer = await client.get("organization/me")
            await store.learn(str(from_json(answer.body)["slug"]))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - nothing waits for this, and nothing but a rotation needs it
            _log.info("The organisation of the key is not known yet (%s).", type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
        else:
            return


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def default_catalog() -> "Catalog":
    """Return what an emulator starts with: `autumn_config.py` in the working directory, or else the example.

    Raises:
        CatalogError: The file has no catalog in it.
    """
    from fastapi_autumn.catalog import Catalog  # noqa: PLC0415 - only needed by an emulator
    from fastapi_autumn.catalog.templates import TEMPLATES  # noqa: PLC0415

    path = Path("autumn_config.py")
    return Catalog.load(path) if path.exists() else Catalog.from_source(TEMPLATES["credits"], path)
