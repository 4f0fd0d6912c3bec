"""The limit on concurrent calls, its queue, and the circuit breaker."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from fastapi_autumn import AutumnClient, AutumnSettings, Customer
from fastapi_autumn._machine import MACHINE
from fastapi_autumn.client._pressure import Breaker, Lane, Limiter
from fastapi_autumn.errors import (
    ConnectFailed,
    NoAnswer,
    Overloaded,
    RequestRejected,
    ServerFailure,
    UnexpectedAnswer,
)
from fastapi_autumn.transports import Answer

LISTED = Answer(200, {}, b'{"list": []}')


class Gate:
    """A transport whose answers wait until they are let go; `error` is raised instead of answering."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.arrived: list[bytes] = []
        self.now = self.most = 0
        self.error: Exception | None = None
        self.answer = LISTED

    async def request(self, method: str, path: str, *, body: bytes, headers: Any, bearer: Any) -> Answer:
        self.arrived.append(body)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
        finally:
            self.now -= 1
        if self.error is not None:
            raise self.error
        return self.answer

    async def aclose(self) -> None: ...


class Steady:
    """A machine whose steady clock is the test's."""

    def __init__(self, clock: Any) -> None:
        self.steady = clock
        self.wall_ms = MACHINE.wall_ms
        self.uniform = MACHINE.uniform
        self.new_id = MACHINE.new_id


def client_of(gate: Gate, machine: Any = MACHINE, **settings: Any) -> AutumnClient:
    made = AutumnSettings(_env_file=None, max_retries=0, **settings)
    return AutumnClient(made, transport=gate, secret_key="am_sk_test_secret", machine=machine)


async def test_no_more_calls_than_allowed_and_the_rest_is_refused():
    """Beyond the limit calls wait, beyond the queue they are refused at once, and nothing of those is sent."""
    gate = Gate()
    client = client_of(gate, max_concurrency=4, max_waiting=3)
    calls = [asyncio.create_task(client.plans.list()) for _ in range(10)]
    await asyncio.sleep(0.01)
    gate.open.set()
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert Counter(type(result) for result in results) == {tuple: 7, Overloaded: 3}
    assert gate.most == 4
    assert len(gate.arrived) == 7


async def test_waiting_ends():
    """A call that waits longer than the time-out for its turn is refused, and its place is free again."""
    gate = Gate()
    client = client_of(gate, max_concurrency=1, timeout=0.05)
    first = asyncio.create_task(client.plans.list())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="waited too long"):
        await client.plans.list()
    gate.open.set()

    assert await first == ()
    assert await client.plans.list() == ()


async def test_one_slow_customer_does_not_starve_the_others():
    """A customer whose calls hang has at most a quarter of an idle limiter; others are served meanwhile."""
    limiter = Limiter(8, waiting=100, patience=5)
    slow = [asyncio.create_task(limiter.acquire("balances.check", Lane.CHECK, "slow")) for _ in range(50)]
    await asyncio.sleep(0)

    assert sum(task.done() for task in slow) == 2
    for number in range(6):
        async with asyncio.timeout(60):
            await limiter.acquire("balances.check", Lane.CHECK, f"other-{number}")
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


@pytest.mark.parametrize("floods", [1, 4, 20])
async def test_customers_who_flood_leave_room_for_one_more(floods):
    """However many hang on, none has so much that a customer with no call at all finds no slot."""
    limiter = Limiter(64, waiting=1_000, patience=60)
    flooding = [
        asyncio.create_task(limiter.acquire("balances.check", Lane.CHECK, f"flood-{number % floods}"))
        for number in range(40 * floods)
    ]
    await asyncio.sleep(0)

    assert sum(task.done() for task in flooding) < 64
    async with asyncio.timeout(60):
        await limiter.acquire("balances.check", Lane.CHECK, "honest")
    for task in flooding:
        task.cancel()
    await asyncio.gather(*flooding, return_exceptions=True)


async def test_who_waits_is_called_in_turn_by_customer():
    """A long queue of one customer is no queue for another: the slots that come free go round."""
    limiter = Limiter(1, waiting=100, patience=60)
    await limiter.acquire("balances.check", Lane.CHECK, "first")
    order: list[str] = []

    async def call(customer: str) -> None:
        await limiter.acquire("balances.check", Lane.CHECK, customer)
        order.append(customer)
        limiter.release(Lane.CHECK, customer)

    tasks = [asyncio.create_task(call(customer)) for customer in ["flood"] * 20 + ["honest"]]
    await asyncio.sleep(0)
    limiter.release(Lane.CHECK, "first")
    await asyncio.gather(*tasks)

    assert order.index("honest") == 1


async def test_a_full_queue_takes_a_newcomer_at_the_cost_of_whoever_fills_it():
    """A flood cannot keep an honest customer out of the queue; among the flood itself, the last one is refused."""
    limiter = Limiter(1, waiting=10, patience=60)
    await limiter.acquire("balances.check", Lane.CHECK, "first")
    flood = [asyncio.create_task(limiter.acquire("balances.check", Lane.CHECK, "flood")) for _ in range(12)]
    await asyncio.sleep(0)
    honest = asyncio.create_task(limiter.acquire("balances.check", Lane.CHECK, "honest"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    refused = [task for task in flood if task.done()]
    assert len(refused) == 3
    assert all(isinstance(task.exception(), Overloaded) for task in refused)
    assert not honest.done()
    for task in [*flood, honest]:
        task.cancel()
    await asyncio.gather(*flood, honest, return_exceptions=True)
    assert limiter._waiting == 0
    assert not limiter._queues


async def test_who_was_cancelled_takes_no_place_in_the_queue():
    """Two who left in this moment do not keep a third out, and the slot goes to the one who stays."""
    limiter = Limiter(1, waiting=2, patience=60)
    await limiter.acquire("balances.check", Lane.CHECK, "first")
    leaving = [asyncio.create_task(limiter.acquire("balances.check", Lane.CHECK, "leaving")) for _ in range(2)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    staying = asyncio.create_task(limiter.acquire("balances.check", Lane.CHECK, "staying"))
    # The tasks that were cancelled run before it, so it is asked for by hand, in the moment between.
    coroutine = limiter.acquire("balances.check", Lane.CHECK, "by hand")
    coroutine.send(None)
    coroutine.close()
    limiter.release(Lane.CHECK, "first")
    await staying
    await asyncio.gather(*leaving, return_exceptions=True)

    limiter.release(Lane.CHECK, "staying")
    assert limiter._in_flight == limiter._waiting == 0


@pytest.mark.parametrize("busy", Lane)
async def test_a_busy_lane_leaves_slots_to_the_others(busy):
    """Refunds, front ends, confirmations and checks each find a slot while another lane takes all it can get."""
    limiter = Limiter(32, waiting=1_000, patience=60)
    crowd = [asyncio.create_task(limiter.acquire("any", busy, f"c{number}")) for number in range(100)]
    await asyncio.sleep(0)
    taken = sum(task.done() for task in crowd)

    for lane in Lane:
        if lane is not busy:
            for number in range(2):
                async with asyncio.timeout(60):
                    await limiter.acquire("any", lane, f"{lane}-{number}")
    assert taken == 32 - 2 * (len(Lane) - 1)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


async def test_cancelled_waiters_leave_no_trace():
    """After any mix of turns and cancellations every slot is free again."""
    limiter = Limiter(4, waiting=100, patience=5)

    async def hold(number: int) -> None:
        await limiter.acquire("plans.list", Lane.OTHER, f"c{number % 3}")
        try:
            await asyncio.sleep(0.001 * (number % 5))
        finally:
            limiter.release(Lane.OTHER, f"c{number % 3}")

    tasks = [asyncio.create_task(hold(number)) for number in range(60)]
    for number, task in enumerate(tasks):
        if number % 4 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert limiter._in_flight == 0
    assert not limiter._queues
    assert limiter._waiting == 0
    assert not limiter._of_customer


async def test_a_slot_given_back_in_the_moment_of_a_cancellation():
    """A slot that comes free just when the next in the queue is cancelled goes to the one behind, and is not lost."""
    limiter = Limiter(1, waiting=10, patience=5)
    await limiter.acquire("plans.list", Lane.OTHER, "a")
    cancelled = asyncio.create_task(limiter.acquire("plans.list", Lane.OTHER, "b"))
    behind = asyncio.create_task(limiter.acquire("plans.list", Lane.OTHER, "c"))
    await asyncio.sleep(0)
    cancelled.cancel()
    limiter.release(Lane.OTHER, "a")
    await behind
    limiter.release(Lane.OTHER, "c")

    assert cancelled.cancelled()
    assert limiter._in_flight == 0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


FAILURES = [ConnectFailed("plans.list", "refused"), NoAnswer("plans.list", "lost"), ServerFailure("plans.list", "500")]


@pytest.mark.parametrize("error", FAILURES)
async def test_breaker_opens_probes_and_closes(error):
    """After failures in a row nothing is sent; one probe goes through after a pause, and its success opens the way."""
    clock = Clock()
    breaker = Breaker(clock, failures=3, first_pause=1, longest_pause=3)
    for _ in range(3):
        breaker.after(breaker.before("plans.list"), error)
    with pytest.raises(Overloaded, match="Autumn is down") as refused:
        breaker.before("plans.list")
    assert refused.value.retry_after == 1

    for pause in (1, 2, 3, 3):
        clock.now += pause - 0.1
        with pytest.raises(Overloaded):
            breaker.before("plans.list")
        clock.now += 0.1
        probe = breaker.before("plans.list")
        with pytest.raises(Overloaded):
            breaker.before("plans.list")
        breaker.after(probe, error)

    clock.now += 3
    breaker.after(breaker.before("plans.list"), None)
    breaker.before("plans.list")


async def test_a_probe_that_never_ends_is_followed_by_another():
    """A caller who leaves during the probe must not leave the breaker open for ever."""
    clock = Clock()
    breaker = Breaker(clock, failures=1, first_pause=1)
    breaker.after(breaker.before("plans.list"), FAILURES[0])
    clock.now += 1
    breaker.before("plans.list")
    clock.now += 1
    breaker.before("plans.list")


@pytest.mark.parametrize("error", FAILURES)
async def test_a_blip_costs_little(error):
    """64 calls in flight fail within 50 ms of trouble; all that are made from then on are let through within 2 s."""
    clock = Clock()
    breaker = Breaker(clock)
    began = [breaker.before("balances.check") for _ in range(64)]
    for call in began:
        clock.now += 0.05 / 64
        breaker.after(call, error)

    refused_until = clock.now
    while clock.now < 30:
        clock.now += 0.01
        try:
            call = breaker.before("balances.check")
        except Overloaded:
            refused_until = clock.now
        else:
            breaker.after(call, None)
    assert 0 < refused_until - 0.05 < 2


async def test_refusals_do_not_open_the_breaker():
    """An Autumn that answers 4xx is up."""
    breaker = Breaker(Clock(), failures=2)
    for _ in range(5):
        began = breaker.before("customers.get")
        breaker.after(began, RequestRejected("customers.get", status=404, code="customer_not_found", message=""))
    breaker.before("customers.get")


async def test_an_autumn_that_is_down_is_left_alone():
    """A client whose calls fail stops sending, answers at once, and finds out by itself when Autumn is back."""
    clock = Clock()
    gate = Gate()
    gate.open.set()
    gate.error = ConnectFailed("plans.list", "refused")
    client = client_of(gate, machine=Steady(clock))
    for _ in range(100):
        with pytest.raises(ConnectFailed if len(gate.arrived) < 10 else Overloaded):
            await client.plans.list()
    assert len(gate.arrived) == 10

    gate.error = None
    clock.now += 0.25

    assert await client.plans.list() == ()


CALLS: dict[Lane, Any] = {
    Lane.CHECK: lambda client: client.balances.check("ada", "ai_usage"),
    Lane.CUSTOMER: lambda client: client.customers.get_or_create(Customer("ada")),
    Lane.SETTLEMENT: lambda client: client.balances.track("ada", feature_id="ai_usage", value=-1),
    Lane.OTHER: lambda client: client.plans.list(),
}


@pytest.mark.parametrize("broken", CALLS)
async def test_what_fails_in_one_lane_does_not_shut_the_others(broken):
    """A hundred failures of one kind of call, and each of the other kinds still reaches Autumn."""
    gate = Gate()
    gate.open.set()
    client = client_of(gate)
    gate.error = ServerFailure("any", "500")
    for _ in range(100):
        with pytest.raises((ServerFailure, Overloaded)):
            await CALLS[broken](client)
    assert len(gate.arrived) == 10
    for lane, call in CALLS.items():
        if lane is not broken:
            with pytest.raises(ServerFailure):
                await call(client)
    assert len(gate.arrived) == 10 + len(CALLS) - 1


async def test_a_front_ends_calls_travel_in_a_lane_of_their_own():
    """A customer whose usage page fails again and again neither stops refunds nor checks."""
    gate = Gate()
    gate.open.set()
    client = client_of(gate)
    gate.error = ServerFailure("any", "500")
    for _ in range(20):
        with pytest.raises((ServerFailure, Overloaded)):
            await client.front_end.events.aggregate("ada", "ai_usage", range="7d")
    assert len(gate.arrived) == 10
    with pytest.raises(ServerFailure):
        await client.events.aggregate("ada", "ai_usage", range="7d")
    with pytest.raises(ServerFailure):
        await client.balances.check("ada", "ai_usage")


async def test_a_strangers_page_does_not_open_the_breaker():
    """Ten customers whose prompts a firewall dislikes do not shut the gate for those whose it likes."""
    gate = Gate()
    gate.open.set()
    client = client_of(gate)
    gate.answer = Answer(403, {}, b"<html>blocked</html>")
    for _ in range(30):
        with pytest.raises(UnexpectedAnswer):
            await client.plans.list()
    gate.answer = LISTED
    assert await client.plans.list() == ()
