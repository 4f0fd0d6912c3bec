"""The lean layer: what is between a request and Autumn, without FastAPI and without the emulator.

Charges, settlement, sender, rescuer, customers and client are the real ones. How a request ended, which the middleware
would judge, is known here from the script. The package's delays are shorter in proportion, so that less time passes in
which nothing happens.
"""

import asyncio
import contextlib
from decimal import Decimal
from typing import Any

from fastapi_autumn import AutumnSettings, Customer
from fastapi_autumn.emulator import EMULATOR_KEY
from fastapi_autumn.errors import AutumnError, InsufficientCredits
from fastapi_autumn.settlement import Outcome
from simulation import seams
from simulation.application import PRICES, Record, decide
from simulation.loop import ProcessLoop
from simulation.metering import RATES, kept_at, open_metered, play_use
from simulation.model import ModelBooks
from simulation.network import CALL, SimulatedTransport
from simulation.scenario import Scenario

__all__ = ["LeanScenario"]


class _LeanService:
    def __init__(self, policy: str, organisation: int) -> None:
        self.settings = AutumnSettings(
            _env_file=None,
            secret_key=EMULATOR_KEY if organisation == 0 else f"am_sk_test_organisation{organisation}",
            base_url=f"https://autumn{organisation}.example",
            hold_ttl=60.0,
            event_delay=40.0,
            ensure_ttl=3.0,
            on_unavailable=policy,
        )
        self.transport = SimulatedTransport(self.settings.timeout, organisation)
        self.autumn = seams.SimulatedAutumn(self.settings, prices=PRICES | RATES, transport=self.transport)


_services: dict[Any, _LeanService] = {}


class LeanScenario(Scenario):
    """A plan that is played without FastAPI and without the emulator."""

    def make_services(self, policy: str) -> list[Any]:
        for number in range(self.organisations):
            if (policy, number) not in _services:
                _services[policy, number] = _LeanService(policy, number)
        return [_services[policy, number] for number in range(self.organisations)]

    def make_books(self, number: int) -> Any:
        return ModelBooks(self.world)

    def serve(self, worker: Any, record: Record) -> None:
        """Begin one call."""
        _Call(self, worker, record).begin()

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        return [(number, event) for number, autumn in enumerate(self.autumns) for event in autumn.books.events]

    def usage(self, organisation: int, customer: str, feature: str) -> Decimal:
        return self.autumns[organisation].books.used.get((customer, feature), Decimal(0))

    def close(self) -> None:
        for loop in self.loops:
            loop.dead = True
        for one in self.services:
            one.autumn._running.clear()


class _BodyBroke(Exception):
    """What a model provider's client raises."""


class _Call:
    """One call, as a job in a worker would make it."""

    def __init__(self, scenario: LeanScenario, worker: Any, record: Record) -> None:
        self.scenario = scenario
        self.world = scenario.world
        self.runtime_of = worker.service.autumn
        self.loop: ProcessLoop = worker.loop
        self.record = record
        record.loop = worker.loop
        record.began_at = self.world.now

    def begin(self) -> None:
        number = self.record.number
        self.world.note(self.loop.name, f"call #{number} of {self.record.plan['customer']} comes in")
        CALL.set(number)
        task = self.loop.create_task(self.run())
        CALL.set(None)
        leaves = self.record.plan["client"].get("leaves")
        if leaves is not None:
            self.world.at(leaves, self.leave, task)

    def leave(self, task: Any) -> None:
        """The caller is gone, and who serves them is cancelled."""
        record = self.record
        if record.ended_at is None and record.complete_at is None and not self.loop.dead:
            record.left_at = self.world.now
            self.world.note("client", f"call #{record.number} is left")
            self.loop.call_soon_threadsafe(task.cancel)

    async def run(self) -> None:
        record, loop = self.record, self.loop
        loop.in_flight += 1
        try:
            await self.serve()
        except BaseException as error:
            if loop.dead:
                raise
            record.error = type(error).__name__
            record.cancelled = record.cancelled or isinstance(error, asyncio.CancelledError)
        finally:
            loop.in_flight -= 1
        record.ended_at = self.world.now
        how = "complete" if record.complete_at is not None else f"broken off {record.error}".rstrip()
        self.world.note(loop.name, f"call #{record.number} ends: {record.status} {how}")
        self.world.moment("ended", record.number)

    async def serve(self) -> None:
        record, plan, world = self.record, self.record.plan, self.world
        runtime = self.runtime_of.runtime
        customer = Customer(plan["customer"])
        try:
            with contextlib.suppress(AutumnError):
                # As the middleware does; the charge asks again.
                await runtime.customers.exists(customer)
            charge = await (
                open_metered(runtime.charges, plan)
                if "use" in plan
                else runtime.charges.open(
                    customer,
                    plan["model"],
                    feature_id=plan["feature"],
                    charging=plan["charging"],
                    confirm_customer=False,
                )
            )
        except AutumnError as error:
            record.status = 402 if isinstance(error, InsufficientCredits) else 503
            record.complete_at = world.now
            return
        record.reached_at, record.verified = world.now, charge.verified
        record.charge_ids.append(charge.id)
        world.note(self.loop.name, f"call #{record.number}: the handler begins")
        world.moment("handling", record.number)
        try:
            await self.play(charge)
        except asyncio.CancelledError:
            charge.finish(Outcome.GONE if record.left_at is not None else Outcome.FAILED)
            raise
        except _BodyBroke:
            charge.finish(Outcome.FAILED)
            record.status = 500
            return
        record.status, record.complete_at = 200, world.now
        charge.finish(Outcome.DONE)

    async def play(self, charge: Any) -> None:
        record, world = self.record, self.world
        for what, *value in record.plan["script"]:
            match what:
                case "sleep":
                    await asyncio.sleep(value[0])
                case "raise" | "http" | "status" | "timeout":
                    record.failed_at = record.failed_at or world.now
                    raise _BodyBroke
                case "used" | "step":
                    await play_use(record, world, charge, what, value)
                case "settle" | "refund" | "keep":
                    said = kept_at(record, world.now) if what == "keep" else value[0] if value else None
                    record.said.append((world.now, what, said))
                    world.note(self.loop.name, f"call #{record.number}: the handler says {what} {value or ''}".rstrip())
                    decide(charge, what, value[0] if value else None)
            world.moment("step", record.number, what)
