"""The network between the processes and Autumn, and all that happens to a request on its way.

Every fault is data in the plan. A request is told apart by its operation, the call that it is about, and how many of
that kind came before. A connection that closes does not stop the work at the other end, a request that is given up may
arrive later, and what is sent twice is worked on twice.
"""

import contextvars
import functools
import json
from collections import Counter
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

from pydantic_core import from_json

from fastapi_autumn.errors import ConnectFailed, NoAnswer
from fastapi_autumn.transports import Answer
from simulation.autumn import Asked, Autumn, Reply, refuse
from simulation.loop import ProcessLoop, current
from simulation.world import EPOCH_MS, World

__all__ = ["CALL", "FAULTS", "Network", "SimulatedTransport"]

CALL: contextvars.ContextVar[int | None] = contextvars.ContextVar("call", default=None)
"""Which call the running task works for."""

# What may happen to a request, and to which operations it is of interest.
FAULTS = {
    "lost": "the request is lost",
    "reset": "the connection breaks before the work",
    "refuse": "the connection is refused",
    "answer_lost": "the work is done, the answer is lost",
    "answer_reset": "the work is done, then the connection breaks",
    "slow_answer": "the work is done, the answer is slow",
    "slow_work": "the key is claimed at once, the work is done late",
    "late": "the request arrives late",
    "late_failure": "the key is claimed at once; late, the work fails and frees it",
    "late_500": "the work is done, and a late 500 frees the key",
    "500_after": "the work is done, and a 500 frees the key",
    "500": "500 without the work",
    "503": "503 without the work",
    "429": "429",
    "202": "202 without the work",
    "202_work": "202, and the work is done from a queue",
    "twice": "the request is sent twice, the second answer comes back",
    "twice_first": "the request is sent twice, the first answer comes back",
    "again": "the request arrives once more, much later",
    "stranger": "a stranger answers, without the work",
    "stranger_after": "a stranger answers, the work is done",
    "crash": "Autumn dies after it claimed the key, before the work",
}
_STRANGERS = (302, 400, 403, 404, 407, 408, 425, 499, 502, 504)
_KINDS = {
    "balances.check": "check",
    "balances.track": "track",
    "balances.finalize": "finalize",
    "customers.get_or_create": "customer",
    "customers.get": "customer",
    "events.list": "events",
    "events.aggregate": "events",
}


class SimulatedTransport:
    """What the package is handed as its transport; the network of the world that is running does the rest.

    Args:
        timeout: Seconds for a call as a whole.
        organisation: Whose key it carries.
    """

    network: "Network"

    def __init__(self, timeout: float, organisation: int) -> None:
        self.timeout = timeout
        self.organisation = organisation

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: Any = None
    ) -> Answer:
        """See `fastapi_autumn.transports.Transport`."""
        loop = current()
        future = loop.create_future()
        if bearer is not None:
            headers = {**headers, "authorization": f"Bearer {bearer.get_secret_value()}"}
        self.network.send(self.organisation, loop, future, method, path, body, headers)
        # What `asyncio.timeout` comes to, for a fraction of its steps.
        patience = loop.call_later(self.timeout, _give_up, future, path)
        try:
            return await future
        finally:
            patience.cancel()

    async def aclose(self) -> None:
        """Do nothing."""


@functools.lru_cache(maxsize=10_000)
def _date(second: int) -> str:
    """Return what Autumn's clock says in a second of a world, as HTTP has it. All worlds begin at the same time."""
    return formatdate(EPOCH_MS // 1000 + second, usegmt=True)


def _give_up(future: Any, path: str) -> None:
    if not future.done():
        future.set_exception(NoAnswer(path, "no answer in time", timed_out=True))


class Network:
    """Carries requests to Autumn, as the plan says.

    Args:
        world: Where it is.
        autumns: Who answers, by organisation.
        faults: The plan's faults of single requests.
        weather: The plan's faults that last for a while.
    """

    def __init__(
        self, world: World, autumns: list[Autumn], *, faults: list[dict[str, Any]], weather: list[dict[str, Any]]
    ) -> None:
        self.world = world
        self.autumns = autumns
        self.weather = weather
        self.call_of_charge: dict[str, int] = {}
        self.troubles: list[float] = []
        self.troubled: set[int | None] = set()
        self.on_its_way = 0
        self._aimed: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._timed: list[dict[str, Any]] = []
        for fault in faults:
            if fault.get("call") is not None:
                self._aimed[fault["op"], fault["call"], fault["nth"]] = fault
            else:
                self._timed.append(fault)
        self._seen: Counter[Any] = Counter()
        self._sent = 0

    def send(
        self,
        organisation: int,
        loop: ProcessLoop,
        future: Any,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> None:
        """Send a request of a process; `future` gets the answer, or what a transport raises."""
        world = self.world
        request = Asked(path.removeprefix("/v1/"), path, dict(headers), from_json(body) if body else {}, method)
        charge, call = request.charge_id, CALL.get()
        kind = _KINDS.get(request.operation, "other")
        if kind == "check" and not request.moves:
            kind = "seal"
        if kind == "check" and charge is not None and call is not None:
            self.call_of_charge[charge] = call
        elif charge is not None:
            call = self.call_of_charge.get(charge, call)
        self._seen[kind, call] += 1
        self._sent += 1
        number = (self._sent, kind, call, self._seen[kind, call])
        fault = self._fault(loop, kind, call, number)
        what = "" if fault is None else fault["fault"]
        if fault is not None:
            world.happened[f"{kind}: {what}"] += 1
            self.troubles.append(world.now)
            self.troubled.add(call)
        world.note(loop.name, _sent, request, kind, call, what)
        world.moment("sent", kind, call)
        _Packet(self, self.autumns[organisation], loop, future, request, kind, call, fault, number).leave()

    def at(self, delay: float, do: Any, *args: Any) -> None:
        """Have something happen on the way, and know that it is still to come."""
        self.on_its_way += 1
        self.world.at(delay, self._happen, do, args)

    def _happen(self, do: Any, args: Any) -> None:
        self.on_its_way -= 1
        do(*args)

    def _fault(self, loop: ProcessLoop, kind: str, call: int | None, number: tuple[Any, ...]) -> dict[str, Any] | None:
        aimed = self._aimed.get((kind, call, number[3]))
        if aimed is not None:
            return aimed
        for place, timed in enumerate(self._timed):
            if timed["op"] == kind and timed["at"] <= self.world.now:
                return self._timed.pop(place)
        for window in self.weather:
            if (
                window["at"] <= self.world.now < window["at"] + window["for"]
                and window.get("worker") in (None, loop.worker)
                and window.get("op") in (None, kind)
                and self.world.unit("weather", window["fault"], window["at"], *number[1:]) < window["p"]
            ):
                return window
        return None


class _Packet:
    """One request on its way."""

    def __init__(
        self,
        network: Network,
        autumn: Autumn,
        loop: ProcessLoop,
        future: Any,
        request: Asked,
        kind: str,
        call: int | None,
        fault: dict[str, Any] | None,
        number: tuple[Any, ...],
    ) -> None:
        self.network = network
        self.world = network.world
        self.autumn = autumn
        self.loop = loop
        self.future = future
        self.request = request
        self.kind = kind
        self.call = call
        self.fault = fault or {}
        self.number = number[1:]
        self.status = 0
        # One draw decides both ways.
        way = self.world.unit("way", *self.number)
        self._there = 0.001 + 0.019 * way
        self._back = 0.001 + 0.019 * (way * 4096 % 1)

    def draw(self, low: float, high: float, what: str) -> float:
        return self.world.uniform(low, high, what, *self.number)

    def leave(self) -> None:
        what, wait = self.fault.get("fault"), self._there
        if what == "late":
            wait += self.fault["d"]
        elif what == "again":
            self.network.at(wait + self.fault["d"], self._again)
        self.network.at(wait, self.arrive)

    def arrive(self) -> None:
        """The request is at Autumn, or wherever it goes instead."""
        fault, what, autumn = self.fault, self.fault.get("fault"), self.autumn
        key = self.request.key
        match what:
            case "lost":
                return
            case "reset":
                self.fail(NoAnswer(self.request.path, "the connection broke"))
            case "refuse":
                self.fail(ConnectFailed(self.request.path, "connection refused"))
            case "429":
                self.reply(Reply(429, {"retry-after": "1"}, b"Too many requests, please try again later."))
            case "500":
                self.reply(refuse(500, "internal_error", "Internal error"))
            case "503":
                self.reply(refuse(503, "service_unavailable", "Service unavailable"))
            case "202":
                self.reply(_queued(self.request))
            case "202_work":
                self.network.at(fault["d"], self._work_unseen)
                self.reply(_queued(self.request))
            case "stranger":
                self.reply(self._stranger())
            case "crash":
                autumn.claim(key)
                self.fail(NoAnswer(self.request.path, "the connection broke"))
            case "late_failure" | "slow_work":
                if not autumn.claim(key):
                    self.reply(autumn.duplicate(key))
                    return
                self.network.at(fault["d"], self._end_late)
            case "twice" | "twice_first":
                first = self._work()
                if what == "twice_first":
                    self.reply(first)
                self.network.at(self.draw(0.0005, 0.5, "second"), self._second)
            case _:
                reply = self._work()
                self._after(reply)

    def _after(self, reply: Reply) -> None:
        fault, what = self.fault, self.fault.get("fault")
        match what:
            case "answer_lost":
                return
            case "answer_reset":
                self.fail(NoAnswer(self.request.path, "the connection broke"))
            case "slow_answer":
                self.network.at(fault["d"], self.reply, reply)
            case "500_after" | "late_500" if reply.status < 400:
                wait = fault["d"] if what == "late_500" else 0.0
                self.network.at(wait, self._fail_and_free)
            case "stranger_after":
                self.reply(self._stranger())
            case _:
                self.reply(reply)

    def _work(self) -> Reply:
        reply = self.autumn.handle(self.request)
        self.world.note(self.autumn.name, _worked, self.request, self.kind, self.call, reply)
        self.world.moment("worked", self.kind, self.call)
        self.status = reply.status
        return reply

    def _work_unseen(self) -> None:
        self._work()

    def _again(self) -> None:
        # A 404 seals no key. Who meets one and is sent twice, minutes apart: see docs/simulation.md.
        if self.status != 404:
            self._work()

    def _second(self) -> None:
        reply = self._work()
        if self.fault["fault"] == "twice":
            self.reply(reply)

    def _end_late(self) -> None:
        if self.fault["fault"] == "late_failure":
            self.autumn.free(self.request.key)
            self.world.note(self.autumn.name, f"{_shown(self.request, self.kind, self.call)} fails late, key freed")
            self.reply(refuse(500, "internal_error", "Internal error"))
            return
        reply = self.autumn.work(self.request)
        if reply.status >= 400 and reply.status != 409:
            self.autumn.free(self.request.key)
        self.world.note(self.autumn.name, f"{_shown(self.request, self.kind, self.call)} = {_outcome(reply)}, late")
        self.reply(reply)

    def _fail_and_free(self) -> None:
        self.autumn.free(self.request.key)
        self.reply(refuse(500, "internal_error", "Internal error"))

    def _stranger(self) -> Reply:
        status = self.fault.get("status") or _STRANGERS[int(self.draw(0, len(_STRANGERS), "stranger"))]
        return Reply(status, {"content-type": "text/html"}, b"<html><body>The edge speaks.</body></html>")

    def reply(self, reply: Reply) -> None:
        self.network.at(self._back, self._delivered, reply)

    def _delivered(self, reply: Reply) -> None:
        if self.loop.dead or self.future.done():
            return
        if self.fault:
            self.world.note(self.loop.name, f"<- {self.kind} {_call(self.call)} {reply.status}")
        self.future.set_result(Answer(reply.status, {**reply.headers, "date": _date(int(self.world.now))}, reply.body))
        self.world.moment("answered", self.kind, self.call)

    def fail(self, error: Exception) -> None:
        self.network.at(self._back, self._failed, error)

    def _failed(self, error: Exception) -> None:
        if not self.loop.dead and not self.future.done():
            self.future.set_exception(error)


def _queued(request: Asked) -> Reply:
    body = request.body
    answer = {"customer_id": body.get("customer_id"), "balance": None}
    if request.operation == "balances.check":
        answer |= {"allowed": True, "required_balance": body.get("required_balance", 1), "flag": None}
    else:
        answer |= {"value": body.get("value", 1)}
    return Reply(202, {"content-type": "application/json"}, json.dumps(answer).encode())


def _call(call: int | None) -> str:
    return "" if call is None else f"#{call}"


def _sent(request: Asked, kind: str, call: int | None, fault: str) -> str:
    return f"-> {_shown(request, kind, call)}{f'   [{fault}]' if fault else ''}"


def _worked(request: Asked, kind: str, call: int | None, reply: Reply) -> str:
    return f"{_shown(request, kind, call)} = {_outcome(reply)}"


def _shown(request: Asked, kind: str, call: int | None) -> str:
    body = request.body
    if kind == "seal":
        return f"seal {_call(call)} {(request.key or '').partition(':')[2]} of {body.get('customer_id')}"
    if kind == "check":
        how = "hold" if body.get("lock") else "deduct"
        return f"check {_call(call)} {how} {body.get('required_balance')} of {body.get('customer_id')}"
    if kind == "track":
        return f"track {_call(call)} {body.get('value')} for {body.get('customer_id')}"
    if kind == "finalize":
        override = "" if body.get("override_value") is None else f" at {body['override_value']}"
        return f"{body.get('action')} {_call(call)}{override}"
    return f"{request.operation} {_call(call)} {body.get('customer_id') or ''}".rstrip()


def _outcome(reply: Reply) -> str:
    if reply.status != 200:
        return str(reply.status)
    body = from_json(reply.body) if reply.content is None else reply.content
    if "allowed" in body:
        return "allowed" if body["allowed"] else "denied"
    if "deductions" in body:
        return "moved " + (" ".join(str(row.get("value")) for row in body["deductions"]) or "nothing")
    return f"{len(body['list'])} events" if "list" in body else "done"
