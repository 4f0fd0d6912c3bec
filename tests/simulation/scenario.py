"""One scenario: a plan is played, then everything is left alone until nothing is left to do, then the oracle looks."""

import functools
import gc
import hashlib
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from fastapi_autumn import AutumnSettings
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator
from simulation import seams
from simulation.application import PRICES, Application, Record
from simulation.autumn import Autumn as SimulatedAutumn
from simulation.autumn import EmulatorBooks
from simulation.database import Database
from simulation.loop import ProcessLoop, first_iteration, forget_generators, last_reference
from simulation.memory import SimulatedDatabase
from simulation.network import Network, SimulatedTransport
from simulation.oracle import violations
from simulation.plan import Plan
from simulation.server import Exchange, SocketExchange
from simulation.world import EPOCH_MS, World

__all__ = ["Scenario", "Verdict", "play"]

_STOP_WITHIN = 15.0
_LONGEST = 2 * 3600.0
_STEPS = 3_000_000

_JOBS = 100_000
_JOB: dict[str, Any] = {
    "customer": "a-job",
    "feature": "plenty",
    "route": "chat",
    "model": "small",
    "charging": "deduct",
    "script": [],
    "client": {"spec": "2.3"},
}

CATALOG = Catalog.from_source(
    """
from fastapi_autumn.catalog import feature, item, plan
plenty = feature(id="plenty", name="Plenty", type="metered", consumable=True)
scarce = feature(id="scarce", name="Scarce", type="metered", consumable=True)
brief = feature(id="brief", name="Brief", type="metered", consumable=True)
topped_up = feature(id="topped_up", name="Topped up", type="metered", consumable=True)
free = plan(id="free", name="Free", group="main", auto_enable=True, items=[
    item(plenty, included=100000, reset="month"), item(scarce, included=12, reset="month"),
    item(brief, included=15, reset="minute")])
pro = plan(id="pro", name="Pro", group="main", items=[
    item(plenty, included=200000, reset="month"), item(scarce, included=40, reset="month"),
    item(brief, included=30, reset="minute")])
""",
    Path("catalog.py"),
).to_wire()


class _Service:
    """What is made once and serves in every scenario: it keeps nothing between them but routes."""

    def __init__(self, policy: str, organisation: int) -> None:
        key = EMULATOR_KEY if organisation == 0 else f"am_sk_test_organisation{organisation}"
        self.settings = AutumnSettings(
            _env_file=None,
            secret_key=key,
            base_url=f"https://autumn{organisation}.example",
            outbox_url="sqlite+aiosqlite://",
            hold_ttl=120.0,
            max_body_bytes=1000,
            on_unavailable=policy,
        )
        self.transport = SimulatedTransport(self.settings.timeout, organisation)
        self.autumn = seams.SimulatedAutumn(self.settings, prices=PRICES, transport=self.transport)
        self.application = Application(self.autumn)


_services: dict[Any, _Service] = {}


def service(policy: str, organisation: int) -> _Service:
    """Return a service that is made already, or make it."""
    if (policy, organisation) not in _services:
        _services[policy, organisation] = _Service(policy, organisation)
    return _services[policy, organisation]


class Worker:
    """One place where a process of the service runs, and the next one after it."""

    def __init__(self, scenario: "Scenario", number: int, plan: dict[str, Any]) -> None:
        self.scenario = scenario
        self.number = number
        self.plan = plan
        self.generation = 0
        self.loop: Any = None
        self.is_up = False
        self.jumped = 0.0
        self.is_replaced = False
        self.organisation = number % scenario.organisations
        self.service = scenario.services[self.organisation]

    def start(self) -> None:
        if self.scenario.is_over or self.is_replaced or (self.loop is not None and not self.loop.dead):
            return
        world = self.scenario.world
        self.generation += 1
        name = f"w{self.number}.{self.generation}"
        offset = self.plan.get("offset", 0.0) + self.jumped
        self.loop = loop = ProcessLoop(world, name, wall_offset=offset, rate=self.plan.get("rate", 1.0))
        loop.worker, loop.organisation = self.number, self.organisation
        self.stopping = loop.create_future()
        self.main = loop.create_task(self._main(loop, self.stopping))

    async def _main(self, loop: Any, stopping: Any) -> None:
        world = self.scenario.world
        try:
            async with self.service.autumn.running():
                self.is_up = True
                world.note(loop.name, "is up")
                world.moment("up", self.number)
                if self.is_replaced:
                    # It was rolled before it was up.
                    world.at(0.0, self.stop)
                await stopping
                if not loop.dead:
                    world.note(loop.name, "shuts down")
        except Exception as error:  # noqa: BLE001 - a service that cannot start, or fails to stop, is the oracle's to judge
            if loop.dead:
                return
            world.note(loop.name, f"fails: {type(error).__name__}: {error}")
            if loop.asked_to_stop_at is not None:
                self.scenario.complain("stop", f"{loop.name} ended its shutdown with {type(error).__name__}")
        self.is_up = False
        loop.stopped_at = world.now
        world.note(loop.name, "is down")
        asked = loop.asked_to_stop_at
        took = 0.0 if asked is None else world.now - asked - loop.stood_still(asked, world.now)
        if took > self.scenario.stop_bound:
            self.scenario.complain("stop", f"{loop.name} took {took:.1f} s to stop")
        if asked is None or not self.scenario.only_jobs:
            world.at(5.0, self.start_again, loop)
        self.gone(loop)

    def gone(self, loop: Any) -> None:
        """The process has ended by itself."""
        self.scenario.world.at(0.01, loop.kill_quietly)

    def start_again(self, loop: Any) -> None:
        if self.loop is loop and not self.is_up:
            loop.kill_quietly()
            self.start()

    def stop(self) -> None:
        """Ask for a stop in order: nothing new comes in, requests may end, then the lifespan."""
        loop, world = self.loop, self.scenario.world
        if loop is None or loop.dead or loop.asked_to_stop_at is not None or not self.is_up:
            return
        world.note(loop.name, "is asked to stop")
        self.is_up = False
        until = world.now + _STOP_WITHIN

        def look() -> None:
            if loop.dead or self.stopping.done():
                return
            if loop.in_flight and world.now < until:
                world.at(0.05, look)
                return
            loop.asked_to_stop_at = world.now
            self.stopping.set_result(None)

        look()

    def roll(self) -> "Worker":
        """Have the next version take this one's place: it starts at once, and this one stops in order meanwhile."""
        after = Worker(self.scenario, self.number, self.plan)
        after.generation, after.jumped = self.generation, self.jumped
        self.is_replaced = True
        self.stop()
        after.start()
        return after

    def kill(self) -> None:
        if self.loop is not None and not self.loop.dead:
            self.scenario.world.note(self.loop.name, "IS KILLED")
            self.is_up = False
            self.loop.kill()

    def pause(self, seconds: float) -> None:
        loop, world = self.loop, self.scenario.world
        if loop is None or loop.dead or loop.frozen:
            return
        world.note(loop.name, f"stands still for {seconds} s")
        loop.freeze()

        def go_on() -> None:
            if not loop.dead:
                world.note(loop.name, "goes on")
                loop.thaw()

        world.at(seconds, go_on)

    def jump(self, by: float) -> None:
        self.jumped += by
        if self.loop is not None:
            self.scenario.world.note(self.loop.name, f"its clock jumps by {by} s")
            self.loop.wall_offset += by


class Scenario:
    """A plan that is being played.

    Args:
        plan: See `simulation.plan`.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = world = World(plan["seed"])
        seams.enter()
        self.organisations = plan.get("organisations", 1)
        self.services = self.make_services(plan["policy"])
        database = Database if plan["store"] == "sql" else SimulatedDatabase
        self.database: Any = database(world, faults=plan["db"], weather=plan["db_weather"])
        for one in self.services:
            one.autumn.database = self.database
        self.autumns = [
            SimulatedAutumn(world, self.make_books(number), name=f"autumn{number or ''}")
            for number in range(self.organisations)
        ]
        self.network = Network(world, self.autumns, faults=plan["net"], weather=plan["weather"])
        SimulatedTransport.network = self.network
        self.stop_bound = 4 * self.services[0].settings.shutdown_timeout
        self.complaints: list[str] = []
        self.replaced: list[Worker] = []
        self.is_over = False
        self.only_jobs = "jobs" in plan
        self.records = {call["n"]: Record(call) for call in plan["calls"]}
        for one in self.services:
            one.autumn._running.clear()
        self.prepare()
        self.workers = [Worker(self, number, worker) for number, worker in enumerate(plan["workers"])]
        self._set_the_log(plan["log"])

    @property
    def loops(self) -> list[ProcessLoop]:
        """All processes that there were."""
        return [thing for thing in self.world.keep_alive if isinstance(thing, ProcessLoop)]

    def complain(self, kind: str, what: str) -> None:
        self.complaints.append(f"{kind}: {what}")

    def make_services(self, policy: str) -> list[Any]:
        """Return the service of each organisation."""
        return [service(policy, number) for number in range(self.organisations)]

    def make_books(self, number: int) -> Any:
        """Return who does the arithmetic at Autumn."""
        emulator = Emulator(":memory:", catalog=CATALOG, machine=seams.EmulatorMachine(self.world, EPOCH_MS))
        emulator.add_key(self.services[number].settings.secret_key.get_secret_value())
        return EmulatorBooks(emulator)

    def prepare(self) -> None:
        """Tell the applications which world they are in."""
        for one in self.services:
            if hasattr(one, "application"):
                one.application.world, one.application.records = self.world, self.records

    def serve(self, worker: "Worker", record: Record) -> None:
        """Begin one request."""
        kind = SocketExchange if record.plan["route"] == "socket" else Exchange
        kind(self.world, worker.service.application.app, worker.loop, record).begin()

    def _set_the_log(self, log: dict[str, Any]) -> None:
        world = self.world
        for autumn in self.autumns:
            autumn.page = log.get("page", 1000)
            autumn.store_delay = lambda: world.uniform(0.5, 1.0, "log", world.now) * log["delay"]
            busy = log.get("busy")
            if busy:
                autumn.busy_since, autumn.busy_until = busy["at"], busy["at"] + busy["for"]
                autumn.busy_every = busy["every"]

    def play(self) -> None:
        """Play the plan, and let the world come to rest."""
        world, plan = self.world, self.plan
        for worker in self.workers:
            world.at(worker.plan["start"], worker.start)
        for call in plan["calls"]:
            world.at(call["at"], self._call, self.records[call["n"]])
        for place, fault in enumerate(plan["world"]):
            self._arm(fault, place)
        for change in plan.get("books", ()):
            world.at(change["at"], self._change_the_books, change)
        if "restore" in plan:
            self.database.arm_restore(plan["restore"]["at"], plan["restore"]["age"])
        seams.poll_every(1.0 if plan.get("layer", "full") == "full" else 8.0)
        world.run(plan["end"])
        self._rest()

    def _arm(self, fault: dict[str, Any], place: int) -> None:
        world = self.world
        if "on" in fault:
            world.on(tuple(fault["on"]), lambda: world.at(fault["after"], self._strike, fault, place))
        else:
            world.at(fault["at"], self._strike, fault, place)

    def _strike(self, fault: dict[str, Any], place: int) -> None:
        worker = self.workers[fault["worker"]] if fault["worker"] < len(self.workers) else None
        if worker is None:
            return
        self.world.happened[f"world: {fault['fault']}"] += 1
        match fault["fault"]:
            case "kill":
                worker.kill()
                self.world.at(fault["again"], worker.start)
            case "stop":
                worker.stop()
                self.world.at(fault["again"] + _STOP_WITHIN, worker.start)
            case "roll":
                # One that is going down already is only followed.
                self.replaced.append(worker)
                self.workers[worker.number] = worker.roll()
            case "pause":
                worker.pause(fault["for"])
            case "jump":
                worker.jump(fault["by"])

    def _change_the_books(self, change: dict[str, Any]) -> None:
        """Have a customer buy something, beside whatever calls are under way."""
        customer = {"customer_id": change["customer"]}
        for autumn in self.autumns:
            emulator = autumn.books.emulator
            emulator.call("customers.get_or_create", customer)
            if change["what"] == "top_up":
                grant = {"feature_id": "topped_up", "included_grant": change["credits"]}
                emulator.call("balances.create", customer | grant)
            else:
                emulator.call("billing.attach", customer | {"plan_id": "pro"})
        self.world.happened[f"books: {change['what']}"] += 1
        self.world.note("autumn", f"{change['customer']}: {change['what']} {change.get('credits', '')}".rstrip())

    def _call(self, record: Record) -> None:
        up = [worker for worker in self.workers if worker.is_up and not worker.loop.dead and not worker.loop.frozen]
        if not up:
            return
        worker = up[int(self.world.unit("which", record.number) * len(up))]
        self.serve(worker, record)

    def _rest(self) -> None:
        """Run on until nothing is left to do."""
        world = self.world
        for worker in self.workers:
            world.at(0.0, worker.start)
        # The longest pauses between attempts are over by then.
        world.run(max(world.now, last_fault_ends(self.plan) + 12.0))
        seams.slow_down()
        if "jobs" in self.plan:
            self._rest_with_jobs(**self.plan["jobs"])
        quiet, collections, plan_end = 0, 1, world.now
        while world.now < _LONGEST and world.steps < _STEPS and "jobs" not in self.plan:
            world.run(world.now + 5.0)
            quiet = quiet + 1 if self._is_at_rest() else 0
            if quiet >= (3 if self.database.is_sql else 2):
                break
            if world.now > plan_end + 300 * collections:
                # As a process does from time to time: a stream that broke off may be held by a cycle alone.
                collections += 1
                gc.collect()
        self.rested_at = world.now
        self.is_over = True
        for worker in self.workers:
            if worker.loop is not None and not worker.loop.dead:
                worker.stop()
        world.run(world.now + _STOP_WITHIN + 5 * self.stop_bound)
        for worker in self.workers + self.replaced:
            if worker.loop is not None and worker.loop.stopped_at is None and not worker.loop.dead:
                self.complain("stop", f"{worker.loop.name} never stopped")

    def _rest_with_jobs(self, lives: float, gap: float, count: int) -> None:
        """From now on there are only processes that live for a short time, one after the other."""
        world = self.world
        for one in self.workers:
            one.stop()
        world.run(world.now + _STOP_WITHIN + self.stop_bound)
        for number in range(count):
            worker = self.workers[number % self.organisations]
            worker.start()
            # A job does something, and learns what Autumn's clock says.
            world.at(1.0, self._job_calls, worker, _JOBS + number)
            world.run(world.now + lives)
            worker.stop()
            world.run(world.now + gap)
            if self.database.at_rest(0):
                return

    def _job_calls(self, worker: "Worker", number: int) -> None:
        if worker.is_up:
            self.records[number] = record = Record({"n": number, "at": self.world.now, **_JOB})
            self.serve(worker, record)

    def _is_at_rest(self) -> bool:
        alive = [worker for worker in self.workers if worker.is_up]
        if any(worker.loop is not None and not worker.loop.dead for worker in self.replaced):
            return False
        if len(alive) < len(self.workers) or any(worker.loop.frozen or worker.loop.in_flight for worker in alive):
            return False
        if self.network.on_its_way or self._holds():
            return False
        return self.database.at_rest(len(alive))

    def _holds(self) -> int:
        return sum(len(autumn.books.holds()) for autumn in self.autumns)

    # What the oracle asks.

    def events(self) -> list[tuple[int, dict[str, Any]]]:
        """Return all events at Autumn with their organisation, by its own log."""
        found: list[tuple[int, dict[str, Any]]] = []
        for number, autumn in enumerate(self.autumns):
            cursor: str | None = ""
            while cursor is not None:
                # Five pages a second and not more.
                self.world.now += 1.0
                page = autumn.books.emulator.call("events.list", {"start_cursor": cursor, "limit": 1000})
                found += [(number, event) for event in page["list"]]
                cursor = page["next_cursor"]
        return found

    def usage(self, organisation: int, customer: str, feature: str) -> Decimal:
        """Return what a customer has used, by what is left of all that they were given."""
        shown = self.autumns[organisation].books.emulator.call("customers.get", {"customer_id": customer})
        balance = shown["balances"].get(feature)
        if feature != "topped_up":
            return Decimal(str(balance["usage"]))
        autumn = self.autumns[organisation]
        given = [Decimal(str(one["credits"])) for one in self.topped_up(customer)]
        given += [amount for (whose, _), amount in autumn.granted.items() if whose == customer]
        left = Decimal(0) if balance is None else Decimal(str(balance["remaining"]))
        return sum(given, Decimal(0)) - left

    def topped_up(self, customer: str, until: float = float("inf")) -> list[dict[str, Any]]:
        """Return what a customer has bought of the feature that is topped up."""
        changes = self.plan.get("books", ())
        return [
            one
            for one in changes
            if one["what"] == "top_up" and (one["customer"], one["at"] < until) == (customer, True)
        ]

    def has_bought_a_plan(self, customer: str) -> bool:
        """Whether a customer's plan changed while calls ran: what their balances show then is the emulator's matter."""
        return any((one["customer"], one["what"]) == (customer, "upgrade") for one in self.plan.get("books", ()))

    def granted(self, record: Record) -> Decimal:
        """Return what came back as a grant of its own, because the one that had paid was used up."""
        given = [
            autumn.granted.get((record.plan["customer"], charge))
            for autumn in self.autumns
            for charge in record.charge_ids
        ]
        return sum((one for one in given if one), Decimal(0))

    def falls_short(self, record: Record) -> bool:
        """Whether a row says that Autumn did not move for this call what it was asked to."""
        charges = {charge for state, charge, _ in self.database.rows_left() if state == "shortfall"}
        calls = {self.network.call_of_charge.get(charge) for charge in charges}
        return record.number in calls or not charges.isdisjoint(record.charge_ids)

    def lost_its_hold(self, record: Record) -> bool:
        """Whether the hold of this call ran out at Autumn before anybody closed it."""
        calls = self.network.call_of_charge
        expired = [charge for autumn in self.autumns for charge in autumn.expired]
        return any(charge in record.charge_ids or calls.get(charge) == record.number for charge in expired)

    def may_be_taken_for_dead(self, loop: Any) -> bool:
        """Whether a process was silent for so long that others may have settled its charges while it lived."""
        silence = 2 * self.services[0].settings.outbox_lease
        silences = [end - begin for begin, end in loop.pauses]
        silences += [one["for"] for one in self.plan["db_weather"] if one.get("worker") in (None, loop.worker)]
        return max(silences, default=0.0) > silence

    def stopped_unwritten(self, loop: Any) -> bool:
        """Whether the database was away when a process stopped in order, so that it could not write what it knew."""
        at = loop.stopped_at
        return at is not None and any(
            who == loop.name and at - 8.0 < when <= at for when, who in self.database.troubles
        )

    def was_restored(self, record: Record) -> bool:
        """Whether what this call led to may have been forgotten when an older copy of the database came back."""
        database = self.database
        if database.restored_at < 0 or record.began_at is None:
            return False
        # A copy from before the process began does not know of it, until it writes again.
        loop = record.loop
        died_unwritten = loop.killed_at is not None or self.stopped_unwritten(loop)
        forgotten = died_unwritten and loop.born < database.restored_at and loop.committed_at < database.restored_at
        return forgotten or record.began_at < database.restored_at + 1.0

    def last_trouble(self, record: Record) -> float | None:
        """Return when there was last a reason to refuse a call, before it ended."""
        began, ended = record.began_at, record.ended_at
        times = [at for at in self.network.troubles if at <= ended]
        times += [at for at, _ in self.database.troubles if at <= ended]
        if self.plan["world"] or self.plan["db_weather"]:
            times.append(ended)
        del began
        return max(times, default=None)

    def leftovers(self) -> list[str]:
        found = list(self.complaints) + [f"loop: {error}" for error in self.world.errors]
        for state, charge, says in self.database.rows_left():
            if state != "shortfall" or not self._may_fall_short(charge):
                found.append(f"left: a row {state} ({says})")
        holds = self._holds()
        if holds:
            found.append(f"left: {holds} holds at Autumn")
        if self.world.steps >= _STEPS:
            found.append("livelock: it never came to rest")
        return found

    def _may_fall_short(self, charge: str) -> bool:
        """Whether a person may have to look at this: a customer who could not pay what a call came to."""
        call = self.network.call_of_charge.get(charge)
        about = [record for record in self.records.values() if record.number == call or charge in record.charge_ids]
        return any(record.plan["feature"] != "plenty" for record in about)

    def close(self) -> None:
        for loop in self.loops:
            loop.dead = True
            for connection in loop.connections:
                connection.power_off()
        for one in self.services:
            one.autumn._running.clear()
        for autumn in self.autumns:
            autumn.books.emulator.close()
        self.database.close()


def last_fault_ends(plan: Plan) -> float:
    """Return when the last fault is over that has a time of its own."""
    lasting = [fault["at"] + fault["for"] for fault in plan["weather"] + plan["db_weather"]]
    lasting += [fault["at"] + fault.get("for", 0.0) for fault in plan["world"] if "at" in fault]
    lasting += [plan["restore"]["at"]] if "restore" in plan else []
    return max(lasting, default=0.0)


class Verdict:
    """What came of a scenario."""

    def __init__(self, scenario: Scenario, found: list[str]) -> None:
        self.found = found
        # Not the world: what its processes left goes with it.
        self._notes = scenario.world.notes
        self.happened = scenario.world.happened
        self.seconds = scenario.world.now
        self.steps = scenario.world.steps
        self.outcomes = [(record.status, record.complete_at is not None) for record in scenario.records.values()]

    @functools.cached_property
    def story(self) -> list[tuple[float, str, str]]:
        """What happened, line by line: when, who, what."""
        return [(at, who, what if isinstance(what, str) else what(*about)) for at, who, what, about in self._notes]

    @property
    def digest(self) -> str:
        """What is the same for two runs exactly if their stories are the same."""
        lines = "".join(f"{at:.6f}|{who}|{what}\n" for at, who, what in self.story)
        return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def _make(plan: Plan) -> Scenario:
    if plan.get("layer", "full") == "full":
        return Scenario(plan)
    from simulation.lean import LeanScenario  # which builds on this module

    return LeanScenario(plan)


_played = 0


def play(plan: Plan) -> Verdict:
    """Play a plan and judge it."""
    global _played
    logging.disable(logging.CRITICAL)
    collecting, muted, hooks = gc.isenabled(), sys.unraisablehook, sys.get_asyncgen_hooks()
    gc.disable()
    sys.set_asyncgen_hooks(first_iteration, last_reference)
    sys.unraisablehook = lambda _: None
    scenario = _make(plan)
    try:
        scenario.play()
        found = violations(scenario)
        verdict = Verdict(scenario, found)
    finally:
        scenario.close()
        del scenario
        seams.leave()
        _played += 1
        # Each time, and before the hook is back: what a killed process leaves says things when it is collected.
        gc.collect()
        forget_generators()
        if _played == 1:
            # What was imported stays, and need not be looked through each time.
            gc.freeze()
        sys.unraisablehook = muted
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()
        logging.disable(logging.NOTSET)
    return verdict
