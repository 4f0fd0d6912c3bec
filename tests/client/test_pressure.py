"""The limit on concurrent calls, its queue, and the circuit breaker."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from fastapi_autumn import AutumnClient, AutumnSettings
from fastapi_autumn.client._pressure import Breaker, Limiter
from fastapi_autumn.errors import ConnectFailed, NoAnswer, Overloaded, RequestRejected, ServerFailure
from fastapi_autumn.transports import Answer

LISTED = Answer(200, {}, b'{"list": []}')


class Gate:
    """A transport whose answers wait until they are let go; `error` is raised instead of answering."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.arrived: list[bytes] = []
        self.now = self.most = 0
        self.error: Exception | None = None

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
        return LISTED

    async def aclose(self) -> None: ...


def client_of(gate: Gate, **settings: Any) -> AutumnClient:
    made = AutumnSettings(_env_file=None, max_retries=0, **settings)
    return AutumnClient(made, transport=gate, secret_key="am_sk_test_secret")


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
    """A customer whose calls hang has at most a quarter of the slots; others are served meanwhile."""
    limiter = Limiter(8, waiting=100, patience=5)
    slow = [asyncio.create_task(limiter.acquire("balances.check", "slow")) for _ in range(50)]
    await asyncio.sleep(0)

    assert sum(task.done() for task in slow) == 2
    for number in range(6):
        await asyncio.wait_for(limiter.acquire("balances.check", f"other-{number}"), 0.1)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_cancelled_waiters_leave_no_trace():
    """After any mix of turns and cancellations every slot is free again."""
    limiter = Limiter(4, waiting=100, patience=5)

    async def hold(number: int) -> None:
        await limiter.acquire("plans.list", f"c{number % 3}")
        try:
            await asyncio.sleep(0.001 * (number % 5))
        finally:
            limiter.release(f"c{number % 3}")

    tasks = [asyncio.create_task(hold(number)) for number in range(60)]
    for number, task in enumerate(tasks):
        if number % 4 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert limiter._in_flight == 0
    assert not limiter._queue
    assert not limiter._of_customer


async def test_a_slot_given_back_in_the_moment_of_a_cancellation():
    """A slot that comes free just when the next in the queue is cancelled goes to the one behind, and is not lost."""
    limiter = Limiter(1, waiting=10, patience=5)
    await limiter.acquire("plans.list", "a")
    cancelled = asyncio.create_task(limiter.acquire("plans.list", "b"))
    behind = asyncio.create_task(limiter.acquire("plans.list", "c"))
    await asyncio.sleep(0)
    cancelled.cancel()
    limiter.release("a")
    await behind
    limiter.release("c")

    assert cancelled.cancelled()
    assert limiter._in_flight == 0


@pytest.mark.parametrize(
    "error",
    [ConnectFailed("plans.list", "refused"), NoAnswer("plans.list", "lost"), ServerFailure("plans.list", "500")],
)
async def test_breaker_opens_probes_and_closes(error):
    """After failures in a row nothing is sent; one probe goes through after a pause, and its success opens the way."""
    breaker = Breaker(failures=3, first_pause=0.05, longest_pause=1)
    for _ in range(3):
        breaker.before("plans.list")
        breaker.after(error)
    with pytest.raises(Overloaded, match="Autumn is down") as refused:
        breaker.before("plans.list")
    assert 0 < refused.value.retry_after <= 0.05

    await asyncio.sleep(0.06)
    breaker.before("plans.list")
    with pytest.raises(Overloaded):
        breaker.before("plans.list")
    breaker.after(error)
    await asyncio.sleep(0.06)
    with pytest.raises(Overloaded):
        breaker.before("plans.list")

    await asyncio.sleep(0.06)
    breaker.before("plans.list")
    breaker.after(None)
    breaker.before("plans.list")


async def test_refusals_do_not_open_the_breaker():
    """An Autumn that answers 4xx is up."""
    breaker = Breaker(failures=2)
    for _ in range(5):
        breaker.before("customers.get")
        breaker.after(RequestRejected("customers.get", status=404, code="customer_not_found", message=""))
    breaker.before("customers.get")


async def test_an_autumn_that_is_down_is_left_alone():
    """A client whose calls fail stops sending, answers at once, and finds out by itself when Autumn is back."""
    gate = Gate()
    gate.open.set()
    gate.error = ConnectFailed("plans.list", "refused")
    client = client_of(gate)
    client.plans._caller._breaker = Breaker(failures=5, first_pause=0.05)
    for _ in range(100):
        with pytest.raises(ConnectFailed if len(gate.arrived) < 5 else Overloaded):
            await client.plans.list()
    assert len(gate.arrived) == 5

    gate.error = None
    await asyncio.sleep(0.06)

    assert await client.plans.list() == ()
