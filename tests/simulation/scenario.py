"""One scenario: a plan is played, then everything is left alone until nothing is left to do, then the oracle looks."""

import gc
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from fastapi_autumn import Autumn, AutumnSettings
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator

from simulation import seams
from simulation.autumn import Autumn as SimulatedAutumn
from simulation.autumn import EmulatorBooks
from simulation.database import Database
from simulation.loop import ProcessLoop
from simulation.network import Network, SimulatedTransport
from simulation.oracle import violations
from simulation.plan import Plan
from simulation.server import Exchange
from simulation.service import PRICES, Application, Record
from simulation.world import EPOCH_MS, World

__all__ = ["Scenario", "Verdict", "play"]

_STOP_WITHIN = 15.0
_LONGEST = 2 * 3600.0
_STEPS = 3_000_000

CATALOG = Catalog.from_source(
    """
from fastapi_autumn.catalog import feature, item, plan
ai_usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True)
free = plan(id="free", name="Free", group="main", auto_enable=True, items=[item(ai_usage, included=100000, reset="month")])
""",
    Path("catalog.py"),
).to_wire()


class _Service:
    """What is made once and serves in every scenario: it keeps nothing between them but routes."""

    def __init__(self, policy: str) -> None:
        self.settings = AutumnSettings(
            _env_file=None,
            secret_key=EMULATOR_KEY,
            outbox_url="sqlite+aiosqlite://",
            hold_ttl=120.0,
            max_body_bytes=1000,
            on_unavailable=policy,
        )
        self.transport = SimulatedTransport(self.settings.timeout)
        self.autumn = seams.make_autumn(self.settings, PRICES, self.transport)
        self.application = Application(self.autumn)


_services: dict[str, _Service] = {}


def service(policy: str) -> _Service:
    if policy not in _services:
        _services[policy] = _Service(policy)
    return _services[policy]


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

    def start(self) -> None:
        if self.scenario.is_over or (self.loop is not None and not self.loop.dead):
            return
        world = self.scenario.world
        self.generation += 1
        name = f"w{self.number}.{self.generation}"
        offset = self.plan.get("offset", 0.0) + self.jumped
        self.loop = loop = ProcessLoop(world, name, wall_offset=offset, rate=self.plan.get("rate", 1.0))
        loop.worker = self.number
        self.stopping = loop.create_future()
        self.main = loop.create_task(self._main(loop, self.stopping))

    async def _main(self, loop: Any, stopping: Any) -> None:
        world = self.scenario.world
        try:
            async with self.scenario.autumn_object.running():
                self.is_up = True
                world.note(loop.name, "is up")
                world.moment("up", self.number)
                await stopping
                world.note(loop.name, "shuts down")
        except Exception as error:  # noqa: BLE001 - a service that cannot start, or fails to stop, is the oracle's to judge
            world.note(loop.name, f"fails: {type(error).__name__}: {error}")
            if loop.asked_to_stop_at is not None:
                self.scenario.complain("stop", f"{loop.name} ended its shutdown with {type(error).__name__}")
        self.is_up = False
        loop.stopped_at = world.now
        world.note(loop.name, "is down")
        asked = loop.asked_to_stop_at
        if asked is not None and world.now - asked > self.scenario.stop_bound:
            self.scenario.complain("stop", f"{loop.name} took {world.now - asked:.1f} s to stop")
        if asked is None:
            world.at(5.0, self.start_again, loop)
        self.gone(loop)

    def gone(self, loop: Any) -> None:
        """The process has ended by itself."""
        self.scenario.world.at(0.01, loop.kill_quietly)

    def start_again(self, loop: Any) -> None:
        if self.loop is loop and not self.is_up:
            loop.dead = True
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
        seams.enter(world)
        self.service = service(plan["policy"])
        self.autumn_object: Autumn = self.service.autumn
        self.autumn_object._running.clear()
        self.database = Database(world, faults=plan["db"], weather=plan["db_weather"])
        seams.use_database(self.database)
        self.emulator = Emulator(":memory:", catalog=CATALOG, clock=lambda: EPOCH_MS + int(world.now * 1000))
        self.autumn = SimulatedAutumn(world, EmulatorBooks(self.emulator))
        self.network = Network(world, self.autumn, faults=plan["net"], weather=plan["weather"])
        SimulatedTransport.network = self.network
        self.stop_bound = 4 * self.service.settings.shutdown_timeout
        self.complaints: list[str] = []
        self.is_over = False
        self.records = {call["n"]: Record(call) for call in plan["calls"]}
        self.service.application.world = world
        self.service.application.records = self.records
        self.workers = [Worker(self, number, worker) for number, worker in enumerate(plan["workers"])]
        self._set_the_log(plan["log"])

    def complain(self, kind: str, what: str) -> None:
        self.complaints.append(f"{kind}: {what}")

    def _set_the_log(self, log: dict[str, Any]) -> None:
        world, autumn = self.world, self.autumn
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
        seams.poll_every(1.0)
        world.run(plan["end"])
        # Nobody waits any more for what the sender finds by looking, so it may look less often.
        seams.poll_every(10.0)
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
            case "pause":
                worker.pause(fault["for"])
            case "jump":
                worker.jump(fault["by"])

    def _call(self, record: Record) -> None:
        up = [worker for worker in self.workers if worker.is_up and not worker.loop.dead and not worker.loop.frozen]
        if not up:
            return
        worker = up[int(self.world.unit("which", record.number) * len(up))]
        Exchange(self.world, self.service.application.app, worker.loop, record).begin()

    def _rest(self) -> None:
        """Run on until nothing is left to do."""
        world = self.world
        for worker in self.workers:
            world.at(0.0, worker.start)
        quiet = 0
        while world.now < _LONGEST and world.steps < _STEPS:
            world.run(world.now + 5.0)
            quiet = quiet + 1 if self._is_at_rest() else 0
            if quiet >= 3:
                break
        self.rested_at = world.now
        self.is_over = True
        for worker in self.workers:
            if worker.loop is not None and not worker.loop.dead:
                worker.stop()
        world.run(world.now + _STOP_WITHIN + 5 * self.stop_bound)
        for worker in self.workers:
            if worker.loop is not None and worker.loop.stopped_at is None and not worker.loop.dead:
                self.complain("stop", f"{worker.loop.name} never stopped")

    def _is_at_rest(self) -> bool:
        alive = [worker for worker in self.workers if worker.is_up]
        if len(alive) < len(self.workers) or any(worker.loop.frozen or worker.loop.in_flight for worker in alive):
            return False
        if self.network.on_its_way or self._holds():
            return False
        return seams.at_rest(self.database, len(alive))

    def _holds(self) -> int:
        return len(self.emulator._store.rows("SELECT 1 FROM locks"))

    # What the oracle asks.

    def events(self) -> list[dict[str, Any]]:
        """Return all events at Autumn, by its own log."""
        found, body = [], {"start_cursor": "", "limit": 1000}
        self.world.now += 10.0
        for _ in range(4):
            page = self.emulator.call("events.list", body)
            found += page["list"]
            if not page["next_cursor"]:
                return found
            body["start_cursor"] = page["next_cursor"]
        raise RuntimeError("more events than a scenario has")

    def usage(self, customer: str) -> Decimal:
        balances = self.emulator.call("customers.get", {"customer_id": customer})["balances"]
        return Decimal(str(balances["ai_usage"]["usage"]))

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
        found += [f"left: {what}" for what in seams.leftovers(self.database)]
        holds = self._holds()
        if holds:
            found.append(f"left: {holds} holds at Autumn")
        if self.world.steps >= _STEPS:
            found.append("livelock: it never came to rest")
        return found

    def close(self) -> None:
        for loop in [thing for thing in self.world.keep_alive if isinstance(thing, ProcessLoop)]:
            loop.dead = True
            for connection in loop.connections:
                connection.power_off()
        self.autumn_object._running.clear()
        self.emulator.close()
        self.database.close()


class Verdict:
    """What came of a scenario."""

    def __init__(self, scenario: Scenario, found: list[str]) -> None:
        self.found = found
        self.digest = scenario.world.digest()
        self.story = scenario.world.story
        self.happened = scenario.world.happened
        self.seconds = scenario.world.now
        self.steps = scenario.world.steps
        self.outcomes = [(record.status, record.complete_at is not None) for record in scenario.records.values()]


_played = 0


def play(plan: Plan) -> Verdict:
    """Play a plan and judge it."""
    global _played
    logging.disable(logging.CRITICAL)
    collecting, muted = gc.isenabled(), sys.unraisablehook
    gc.disable()
    sys.unraisablehook = lambda _: None
    scenario = Scenario(plan)
    try:
        scenario.play()
        found = violations(scenario)
        verdict = Verdict(scenario, found)
    finally:
        scenario.close()
        del scenario
        _played += 1
        if _played % 5 == 0:
            gc.collect()
        sys.unraisablehook = muted
        if collecting:
            gc.enable()
        logging.disable(logging.NOTSET)
    return verdict
