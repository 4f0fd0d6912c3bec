"""A small service in front of an emulator, with everything in between open to a test's hand."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel

from fastapi_autumn import Customer, ModelCharge
from fastapi_autumn.charge import Charge, Delivery
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator, Fault
from fastapi_autumn.settlement.sender import Sender
from fastapi_autumn.transports import Answer, AsgiTransport
from service import Service
from settlement.entries import kill, until


class Ask(BaseModel):
    model: str
    fails: bool = False


class Connection(AsgiTransport):
    """The way to the emulator, on which the answers to some calls are not what they were.

    `failing` are operations that Autumn does, after which it fails and, as after each failed call, frees the key.
    """

    def __init__(self) -> None:
        self.emulator: Emulator
        self.failing: list[str] = []

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: Any = None
    ) -> Answer:
        emulator = AsgiTransport(self.emulator, timeout=1)
        answer = await emulator.request(method, path, body=body, headers=headers, bearer=bearer)
        operation = path.removeprefix("/v1/")
        if operation in self.failing:
            self.failing.remove(operation)
            self.emulator._store.run("DELETE FROM claims WHERE key = ?", headers["idempotency-key"])
            return Answer(500, {}, b'{"code": "internal_error", "message": "", "env": "sandbox"}')
        return answer

    async def aclose(self) -> None:
        pass


class Bench:
    """A service with one route that succeeds or fails, and what is behind it."""

    def __init__(self, service: Service, client: Any, connection: Connection) -> None:
        self.service = service
        self.client = client
        self.connection = connection

    async def call(self, *, fails: bool = False) -> int:
        return (await self.client.post("/ai/chat", json={"model": "large", "fails": fails})).status_code

    def fault(self, operation: str, kind: str, **options: Any) -> None:
        self.emulator.faults.add(operation, Fault(kind=kind, **{"times": 1} | options))

    @property
    def emulator(self) -> Emulator:
        return self.connection.emulator

    @property
    def outbox(self) -> Any:
        return self.service.autumn.outbox

    @property
    def delivery(self) -> Delivery:
        return Delivery(self.service.settings, client=self.service.autumn.client, outbox=self.outbox)

    @property
    def sender(self) -> Sender:
        ((running,),) = (tuple(self.service.autumn._running.values()),)
        assert running.sender is not None
        return running.sender

    async def open(self) -> Charge:
        """Take the credits for a call, as a request does."""
        assert self.service.autumn.runtime is not None
        return await self.service.autumn.runtime.charges.open(Customer("ada"), "large")

    async def kill(self) -> None:
        """Have the service end as SIGKILL ends it, as far as its outbox is concerned."""
        await kill(self.outbox)
        await self.sender.stop(within=1)

    def events(self) -> list[tuple[str, str | None]]:
        rows = self.emulator._store.rows(
            "SELECT value, json_extract(properties, '$.settlement') FROM events ORDER BY seq"
        )
        return [(value, settlement) for value, settlement in rows]

    async def used(self) -> Decimal:
        """What is used once nothing is left in the outbox, whatever pauses are due in between."""

        async def is_empty() -> bool:
            await self.service.settled()
            return not any((await self.outbox.count()).values())

        await until(is_empty)
        return await self.service.used()


@contextlib.asynccontextmanager
async def serving(tmp_path: Any, *, beside: Bench | None = None, **settings: Any) -> AsyncIterator[Bench]:
    connection = Connection()
    service = Service(tmp_path, transport=connection, secret_key=EMULATOR_KEY, **{"max_retries": 0} | settings)
    connection.emulator = service.emulator if beside is None else beside.emulator

    @service.app.post("/ai/chat")
    async def chat(ask: Ask, charge: ModelCharge) -> str:
        if ask.fails:
            raise HTTPException(502)
        return charge.id

    async with service.calling() as client:
        yield Bench(service, client, connection)
