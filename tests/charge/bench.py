"""Charges over a line that loses, doubles and delays, to an emulator; everything is settled when the test says so."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from fastapi_autumn import AutumnSettings, Customer
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.catalog.templates import TEMPLATES
from fastapi_autumn.charge import Charge, Charges, Delivery
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.customers import KnownCustomers
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator
from fastapi_autumn.errors import CircuitOpen, ConnectFailed, NoAnswer
from fastapi_autumn.pricing import ModelPrices
from fastapi_autumn.settlement.entry import Entry
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.settlement.sender import Sender
from fastapi_autumn.settlement.store import Row
from fastapi_autumn.transports import Answer, AsgiTransport
from memory_store import MemoryDatabase, MemoryStore
from settlement.entries import SANDBOX, FakeMachine

__all__ = ["ADA", "FAULTS", "Bench", "Line", "bench_of"]

ADA = Customer("ada")
_JSON = {"content-type": "application/json"}


def _says(status: int, code: str) -> Answer:
    return Answer(status, _JSON, json.dumps({"code": code, "message": "", "env": "sandbox"}).encode())


class Line(AsgiTransport):
    """The way to the emulator. `faults` holds, by operation, what happens to its next calls, in order."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__(emulator, timeout=5)
        self.emulator = emulator
        self.faults: dict[str, list[str]] = {}
        self.calls: list[tuple[str, dict[str, Any], str | None]] = []
        self.meanwhile: Callable[[], Any] | None = None
        self.dates = False
        """Whether answers say what time it is at Autumn."""
        self._delayed: list[Callable[[], Any]] = []

    def fault(self, operation: str, *kinds: str) -> None:
        self.faults.setdefault(operation, []).extend(kinds)

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: Any = None
    ) -> Answer:
        operation, key = path.removeprefix("/v1/"), headers.get("idempotency-key")
        self.calls.append((operation, json.loads(body or b"{}"), key))

        async def arrive() -> Answer:
            return await super(Line, self).request(method, path, body=body, headers=headers, bearer=bearer)

        waiting = self.faults.get(operation)
        kind = waiting.pop(0) if waiting else "none"
        answer: Answer = await FAULTS[kind](self, arrive, operation, key)
        if self.dates:
            return answer
        return Answer(answer.status, {k: v for k, v in answer.headers.items() if k != "date"}, answer.body)

    async def deliver_delayed(self) -> None:
        """Have what was held up arrive now."""
        delayed, self._delayed = self._delayed, []
        for arrive in delayed:
            await arrive()

    def free_key(self, key: str | None) -> None:
        """Forget a key, as Autumn does when it fails."""
        self.emulator._store.run("DELETE FROM claims WHERE kind = 'header' AND key = ?", key)


async def _none(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    return await arrive()


async def _refused(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    raise ConnectFailed(operation, "connection refused")


async def _held_back(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    raise CircuitOpen(operation, "Autumn is down", retry_after=1)


async def _lost(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    raise NoAnswer(operation, "timed out", timed_out=True)


async def _late(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    line._delayed.append(arrive)
    raise NoAnswer(operation, "timed out", timed_out=True)


async def _answer_lost(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    await arrive()
    raise NoAnswer(operation, "the connection broke")


async def _doubled(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    await arrive()
    return await arrive()


async def _failed(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    return _says(500, "internal_error")


async def _failed_after_the_work(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    await arrive()
    line.free_key(key)
    return _says(500, "internal_error")


async def _died_after_the_claim(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    store = line.emulator._store
    store.claim("header", str(key), now=line.emulator.clock.now(), until=2**62)
    return _says(502, "internal_error")


async def _put_off(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    # Of a check and of a track; each reads what is its own.
    return Answer(202, _JSON, b'{"allowed": true, "customer_id": "ada", "value": 1, "balance": null}')


async def _put_off_and_done(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    await arrive()
    return await _put_off(line, arrive, operation, key)


async def _strangers_page(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    await arrive()
    return Answer(403, {"content-type": "text/html"}, b"<html>Blocked</html>")


async def _strangers_redirect(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    await arrive()
    return Answer(302, {"location": "https://login.example"}, b"")


async def _rate_limited(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    return Answer(429, _JSON | {"retry-after": "7"}, b'{"code": "rate_limit_exceeded", "message": ""}')


async def _bad_key(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    return _says(401, "invalid_secret_key")


async def _refused_for_another_reason(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    return _says(400, "invalid_inputs")


async def _meanwhile(line: Line, arrive: Any, operation: str, key: str | None) -> Answer:
    assert line.meanwhile is not None
    happened = line.meanwhile()
    if asyncio.iscoroutine(happened):
        await happened
    return await arrive()


FAULTS = {
    "none": _none,
    "refused": _refused,
    "held back": _held_back,
    "lost": _lost,
    "late": _late,
    "answer lost": _answer_lost,
    "doubled by a proxy": _doubled,
    "500": _failed,
    "500 after the work": _failed_after_the_work,
    "crash after the claim": _died_after_the_claim,
    "202 without the work": _put_off,
    "202 with the work": _put_off_and_done,
    "a stranger's page after the work": _strangers_page,
    "a stranger's redirect after the work": _strangers_redirect,
    "429": _rate_limited,
    "401": _bad_key,
    "400": _refused_for_another_reason,
    "meanwhile": _meanwhile,
}


class Bench:
    """What a service runs, wired by hand, with one clock for everybody."""

    def __init__(self, machine: FakeMachine, line: Line, **settings: Any) -> None:
        self.settings = AutumnSettings(_env_file=None, **{"secret_key": EMULATOR_KEY, "max_retries": 0} | settings)
        self.machine = machine
        self.line = line
        self.client = AutumnClient(self.settings, transport=line, machine=machine)
        store = MemoryStore(MemoryDatabase(), SANDBOX)
        self.outbox = Outbox(store, machine=machine, now=self.client.now_ms)
        self.customers = KnownCustomers(self.client, ttl=3600)
        self.delivery = Delivery(self.settings, client=self.client, machine=machine)
        prices = ModelPrices({"small": 1, "large": 5, "all": 50})
        self.charges = Charges(
            self.settings, client=self.client, customers=self.customers, prices=prices, outbox=self.outbox
        )
        self._sender = Sender(self.outbox, self.delivery.deliver, machine=machine)

    async def open(self, model: str = "large", **options: Any) -> Charge:
        return await self.charges.open(ADA, model, **options)

    async def round(self) -> None:
        """Deliver what is due now."""
        await self._sender.drain()

    async def settle(self, *, most_rounds: int = 30) -> int:
        """Let time pass until nothing is due any more; returns how many rounds it took."""
        for rounds in range(most_rounds):
            await self._sender.drain()
            due_at = await self.outbox.store.next_due_at()
            if due_at is None:
                return rounds
            self.machine.advance(seconds=max(0, due_at - self.outbox.now()) / 1000 + 0.001)
        raise AssertionError([row.entry for row in await self.rows()])

    async def rows(self) -> list[Row]:
        return list(await self.outbox.store.list())

    @property
    def used(self) -> Decimal:
        """What the customer has used, by Autumn's books."""
        record = self.line.emulator.call("customers.get", {"customer_id": "ada"})
        return Decimal(str(record["balances"]["ai_credits"]["usage"]))

    def events(self) -> list[str]:
        """What Autumn's log says, oldest first."""
        return [value for (value,) in self.line.emulator._store.rows("SELECT value FROM events ORDER BY seq")]

    def keys_of(self, operation: str) -> list[str | None]:
        return [key for name, _, key in self.line.calls if name == operation]

    def put(self, entry: Entry) -> None:
        """Have an entry delivered."""
        self.outbox.end(entry, owed=True)


@contextlib.asynccontextmanager
async def bench_of(**settings: Any) -> AsyncIterator[Bench]:
    machine = FakeMachine()
    catalog = Catalog.from_source(TEMPLATES["credits"], Path("autumn_config.py"))
    emulator = Emulator(":memory:", catalog=catalog, clock=machine.wall_ms)
    emulator.call("customers.get_or_create", {"customer_id": "ada"})
    bench = Bench(machine, Line(emulator), **settings)
    await bench.outbox.start()
    try:
        yield bench
    finally:
        await bench.customers.drain()
        await bench.outbox.stop(within=10)
        await bench.client.aclose()
        emulator.close()
