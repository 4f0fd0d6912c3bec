"""How often Autumn is asked whether a customer exists, and who waits for it."""

import asyncio
import json
import logging
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from fastapi_autumn import AutumnClient, AutumnSettings, Customer, customers
from fastapi_autumn.customers import KnownCustomers
from fastapi_autumn.errors import NoAnswer, RequestRejected, ServerFailure, UnexpectedAnswer
from fastapi_autumn.transports import Answer

AT_ONCE_BY_DEFAULT = 208
"""What the limiter lets through of confirmations: all slots but those kept for checks, refunds and front ends."""
ADA = Customer("ada", name="Ada", email="ada@private.example")


class CustomersOnly:
    """A transport that knows customers; `hold` keeps its answers back, `failure` is what it does instead."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failure: Exception | Answer | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: Any = None
    ) -> Answer:
        assert path == "/v1/customers.get_or_create"
        asked = json.loads(body)
        self.asked.append(asked)
        await self.hold.wait()
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure or Answer(200, {}, json.dumps({"id": asked["customer_id"]}).encode())

    async def aclose(self) -> None: ...


@pytest.fixture
def autumn() -> CustomersOnly:
    return CustomersOnly()


def known(autumn: CustomersOnly, *, ttl: float = 0.0) -> KnownCustomers:
    settings = AutumnSettings(_env_file=None, max_retries=0)
    return KnownCustomers(AutumnClient(settings, transport=autumn, secret_key="am_sk_test_secret"), ttl=ttl)


async def test_sends_what_the_application_knows(autumn: CustomersOnly) -> None:
    """Name and email go with the id, so that Autumn can fill them in."""
    await known(autumn).exists(ADA)
    assert autumn.asked == [{"customer_id": "ada", "name": "Ada", "email": "ada@private.example"}]


async def test_many_at_once_for_one_customer_are_one_call(autumn: CustomersOnly) -> None:
    """The first requests of a new customer often come together; all of them wait for the same answer."""
    registry = known(autumn)
    autumn.hold.clear()
    waiting = [asyncio.create_task(registry.exists(ADA)) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    autumn.hold.set()
    await asyncio.gather(*waiting)
    assert len(autumn.asked) == 1


async def test_a_record_comes_out_of_a_confirmation_that_is_under_way(autumn: CustomersOnly) -> None:
    """A request that needs to know the customer's plans does not ask a second time, and one that comes later does."""
    registry = known(autumn)
    autumn.hold.clear()
    waiting = [asyncio.create_task(registry.exists(ADA)), asyncio.create_task(registry.record(ADA))]
    await asyncio.sleep(0.01)
    autumn.hold.set()
    assert (await asyncio.gather(*waiting))[1].id == "ada"
    assert len(autumn.asked) == 1
    assert (await registry.record(ADA)).id == "ada"
    assert len(autumn.asked) == 2


async def test_customers_do_not_wait_for_each_other(autumn: CustomersOnly) -> None:
    """One call per customer, all at the same time."""
    registry = known(autumn)
    autumn.hold.clear()
    waiting = [asyncio.create_task(registry.exists(Customer(f"c{number}"))) for number in range(5)]
    await asyncio.sleep(0.01)
    assert len(autumn.asked) == 5
    autumn.hold.set()
    await asyncio.gather(*waiting)


async def test_one_who_leaves_does_not_take_the_others_along(autumn: CustomersOnly) -> None:
    """A cancelled request must not cancel the creation that other requests wait for."""
    registry = known(autumn)
    autumn.hold.clear()
    leaving, staying = (asyncio.create_task(registry.exists(ADA)) for _ in range(2))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.sleep(0)
    autumn.hold.set()
    await staying
    assert leaving.cancelled()
    assert registry.has_seen(ADA)


async def test_a_new_customer_is_waited_for_and_a_known_one_is_not(autumn: CustomersOnly) -> None:
    """The critical path has the creation on it once; afterwards it runs beside the request."""
    registry = known(autumn)
    assert not registry.has_seen(ADA)
    await registry.exists(ADA)
    assert registry.has_seen(ADA)
    autumn.hold.clear()
    await asyncio.wait_for(registry.exists(ADA), timeout=1)
    await asyncio.sleep(0)
    assert len(autumn.asked) == 2
    autumn.hold.set()
    await registry.drain()


async def test_confirms_on_every_request_by_default(autumn: CustomersOnly) -> None:
    """Somebody may delete a customer at Autumn; the next request brings them back."""
    registry = known(autumn)
    for _ in range(3):
        await registry.exists(ADA)
        await registry.drain()
    assert len(autumn.asked) == 3


async def test_a_ttl_spares_confirmations_until_it_ends(autumn: CustomersOnly) -> None:
    """Within the time nothing is asked and no task is made; after it, one confirmation is."""
    registry = known(autumn, ttl=0.05)
    await registry.exists(ADA)
    await registry.exists(ADA)
    assert registry.ensure(ADA) is None
    await asyncio.sleep(0.06)
    task = registry.ensure(ADA)
    assert task is not None
    await task
    assert len(autumn.asked) == 2


async def test_a_forgotten_customer_is_new(autumn: CustomersOnly) -> None:
    """When a check says that there is no such customer, neither a time nor a memory stands in the way."""
    registry = known(autumn, ttl=60)
    await registry.exists(ADA)
    registry.forget(ADA)
    registry.forget(ADA)
    assert not registry.has_seen(ADA)
    await registry.exists(ADA)
    assert len(autumn.asked) == 2


async def test_a_forgotten_customer_has_no_limit_either(autumn: CustomersOnly) -> None:
    """Whoever was deleted at Autumn comes back without what they had, and takes no memory meanwhile."""
    registry = known(autumn)
    limited = {"id": "ada", "billing_controls": {"usage_limits": [{"feature_id": "chat", "limit": 1}]}}
    autumn.failure = Answer(200, {}, json.dumps(limited).encode())
    await registry.exists(ADA)
    assert registry.has_usage_limit(ADA)
    registry.forget(ADA)
    assert not registry.has_usage_limit(ADA)


async def test_record_asks_even_where_a_confirmation_is_recent(autumn: CustomersOnly) -> None:
    """A balance on a page has to be the one of now."""
    registry = known(autumn, ttl=60)
    await registry.exists(ADA)
    assert (await registry.record(ADA)).id == "ada"
    assert len(autumn.asked) == 2


async def test_memory_is_bounded(autumn: CustomersOnly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those confirmed longest ago go first, so a flood of ids costs round trips and not memory."""
    monkeypatch.setattr(customers, "_REMEMBERED", 3)
    registry = known(autumn)
    for name in ("a", "b", "c", "a", "d"):
        await registry.exists(Customer(name))
        await registry.drain()
    assert [name for name in "abcd" if registry.has_seen(Customer(name))] == ["a", "c", "d"]
    assert len(registry._seen) == 3
    assert registry._under_way == {}


async def test_a_failed_creation_reaches_whoever_waits_and_the_next_one_tries_again(
    autumn: CustomersOnly, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody goes on with a customer who does not exist, and a failure is not remembered."""
    registry = known(autumn)
    autumn.failure = Answer(503, {}, b"")
    with pytest.raises(ServerFailure):
        await registry.exists(ADA)
    assert not registry.has_seen(ADA)
    autumn.failure = None
    await registry.exists(ADA)
    assert registry.has_seen(ADA)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    "failure",
    [
        NoAnswer("/v1/customers.get_or_create", "the connection broke"),
        Answer(400, {}, b'{"code": "invalid_inputs", "message": "name: too long"}'),
        Answer(200, {}, b'{"email": "ada@private.example"}'),
    ],
    ids=["no answer", "rejected", "unexpected"],
)
async def test_a_failed_confirmation_is_logged_and_hurts_nobody(
    failure: Exception | Answer, autumn: CustomersOnly, caplog: pytest.LogCaptureFixture
) -> None:
    """The request of a known customer goes on; the log says what happened, and not who it is."""
    registry = known(autumn)
    await registry.exists(ADA)
    autumn.failure = failure
    await registry.exists(ADA)
    await registry.drain()
    assert registry.has_seen(ADA)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("fastapi_autumn", logging.WARNING)
    assert "a customer could not be confirmed" in record.getMessage()
    assert "private.example" not in caplog.text


async def test_a_bug_in_a_confirmation_is_not_swallowed(
    autumn: CustomersOnly, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no failure of Autumn comes with its traceback."""
    registry = known(autumn)
    await registry.exists(ADA)
    autumn.failure = RuntimeError("a bug")
    await registry.exists(ADA)
    await registry.drain()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "RuntimeError: a bug" in caplog.text


async def test_a_rejected_customer_is_told_to_the_caller(autumn: CustomersOnly) -> None:
    """Autumn's reason comes out, so that an application can correct what it sends."""
    autumn.failure = Answer(400, {}, b'{"code": "invalid_inputs", "message": "email: Invalid email"}')
    with pytest.raises(RequestRejected, match="email: Invalid email"):
        await known(autumn).exists(ADA)


async def test_drain_waits_for_what_is_under_way(autumn: CustomersOnly) -> None:
    """A shutdown lets confirmations finish, and has nothing to do where there are none."""
    registry = known(autumn)
    await registry.drain()
    autumn.hold.clear()
    task = registry.ensure(ADA)
    draining = asyncio.create_task(registry.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    autumn.hold.set()
    await draining
    assert task is not None
    assert task.done()


async def test_a_cancelled_confirmation_leaves_nothing_behind(
    autumn: CustomersOnly, caplog: pytest.LogCaptureFixture
) -> None:
    """An event loop that ends cancels its tasks; that is no failure to log."""
    registry = known(autumn)
    autumn.hold.clear()
    task = registry.ensure(ADA)
    assert task is not None
    await asyncio.sleep(0)
    task.cancel()
    await registry.drain()
    await asyncio.sleep(0)
    assert (registry._under_way, registry.has_seen(ADA), caplog.records) == ({}, False, [])


async def test_every_request_of_a_known_customer_begins_its_own_confirmation(autumn: CustomersOnly) -> None:
    """No line and no few at a time: each call is on its way at once, and each is answered for."""
    registry = known(autumn)
    crowd = [Customer(f"customer-{number}") for number in range(300)]
    await asyncio.gather(*(registry.exists(customer) for customer in crowd))
    autumn.asked.clear()
    autumn.hold.clear()
    for customer in crowd:
        await registry.exists(customer)
    while len(autumn.asked) < AT_ONCE_BY_DEFAULT:
        await asyncio.sleep(0)
    for customer in crowd:
        await registry.exists(customer)
    autumn.hold.set()
    await registry.drain()

    assert sorted(body["customer_id"] for body in autumn.asked) == sorted(customer.id for customer in crowd)


async def test_requests_wait_where_confirmations_cannot_keep_up(
    autumn: CustomersOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of piling up or being left out, a confirmation too many holds up its own request, and that one only."""
    monkeypatch.setattr(customers, "_AT_ONCE", 3)
    registry = known(autumn)
    crowd = [Customer(f"customer-{number}") for number in range(5)]
    for customer in crowd:
        await registry.exists(customer)
        await registry.drain()
    autumn.asked.clear()
    autumn.hold.clear()
    requests = [asyncio.create_task(registry.exists(customer)) for customer in crowd]
    while len(autumn.asked) < 5:
        await asyncio.sleep(0)
    assert [request.done() for request in requests] == [True, True, True, False, False]
    autumn.failure = Answer(503, {}, b"")
    autumn.hold.set()
    await asyncio.gather(*requests)
    assert len(autumn.asked) == 5


async def test_reads_no_more_of_a_confirmation_than_whom_it_names(autumn: CustomersOnly) -> None:
    """That the customer exists is known without a look at plans and balances, and not without the name."""
    registry = known(autumn)
    autumn.failure = Answer(200, {}, b'{"id": "ada", "balances": "not as documented"}')
    await registry.exists(ADA)
    assert registry.has_seen(ADA)
    with pytest.raises(UnexpectedAnswer, match="balances"):
        await registry.record(ADA)
    autumn.failure = Answer(200, {}, b'{"id": "bob"}')
    with pytest.raises(UnexpectedAnswer, match="another customer"):
        await registry.exists(Customer("carl"))


@pytest.mark.parametrize("state", ["up", "down", "hanging"])
async def test_drain_ends_within_its_bound_whatever_autumn_does(autumn: CustomersOnly, state: str) -> None:
    """A thousand known customers are being confirmed when the process stops, and nothing is left of it afterwards."""
    registry = known(autumn)
    crowd = [Customer(f"customer-{number}") for number in range(1_000)]
    for begin in range(0, 1_000, 100):
        await asyncio.gather(*(registry.exists(customer) for customer in crowd[begin : begin + 100]))
    autumn.hold.clear()
    requests = [asyncio.create_task(registry.exists(customer)) for customer in crowd]
    await asyncio.sleep(0)
    if state == "down":
        autumn.failure = NoAnswer("customers.get_or_create", "the connection broke")
    if state != "hanging":
        autumn.hold.set()
        await registry.drain()
        assert len(registry._under_way) == 0
    else:
        # The bound is the caller's, and it holds: nothing in here swallows the cancellation.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await registry.drain()
        autumn.hold.set()
        await registry.drain()
    await asyncio.gather(*requests)


async def test_drain_ends_where_all_are_done_and_nobody_has_noticed_yet(autumn: CustomersOnly) -> None:
    """In that moment a `gather` of Python 3.12 and later does not yield, and a loop around it never ends."""
    registry = known(autumn)
    autumn.hold.clear()
    task = registry.ensure(ADA)
    assert task is not None
    while not autumn.asked:
        await asyncio.sleep(0)
    autumn.hold.set()
    await asyncio.sleep(0)
    assert task.done()
    assert len(registry._under_way) == 1

    def give_up(*_: Any) -> None:
        raise AssertionError("it never ends")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        await registry.drain()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(registry._under_way) == 0


async def test_an_outage_does_not_fill_the_log(autumn: CustomersOnly, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand requests during an outage have one thing to say."""
    registry = known(autumn)
    await registry.exists(ADA)
    autumn.failure = NoAnswer("customers.get_or_create", "the connection broke")
    for _ in range(1_000):
        await registry.exists(ADA)
        await registry.drain()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 10 <= len(warnings) < 100
