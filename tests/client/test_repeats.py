"""Which failed calls are repeated: those that cannot happen twice."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from client.answers import ALLOWED, KEY, TRACKED
from fastapi_autumn import AutumnClient, AutumnSettings, Customer
from fastapi_autumn.client import _calls
from fastapi_autumn.errors import (
    AutumnError,
    ConnectFailed,
    DuplicateRequest,
    LockAlreadyExists,
    NoAnswer,
    NotVerified,
    Overloaded,
    RateLimited,
    RequestRejected,
    ServerFailure,
    UnexpectedAnswer,
)
from fastapi_autumn.models import Lock

LOCK = Lock("lock_1", expires_at=1900000000000)

Call = Callable[[AutumnClient], Any]

# Operations by what a repetition could do.
READING: dict[str, Call] = {
    "check": lambda client: client.balances.check("ada", "ai_usage"),
    "get_or_create": lambda client: client.customers.get_or_create(Customer("ada")),
    "get": lambda client: client.customers.get("ada"),
    "update": lambda client: client.customers.update("ada", name="Ada"),
    "events": lambda client: client.events.list(),
    "plans": lambda client: client.plans.list(),
    "portal": lambda client: client.billing.open_customer_portal("ada"),
}
MOVING: dict[str, Call] = {
    "check": lambda client: client.balances.check("ada", "ai_usage", send_event=True),
    "track": lambda client: client.balances.track("ada", feature_id="ai_usage"),
    "track, empty key": lambda client: client.balances.track("ada", feature_id="ai_usage", idempotency_key=""),
    "refund": lambda client: client.balances.track("ada", feature_id="ai_usage", value=-1),
    "tokens": lambda client: client.balances.track_tokens("ada", model_id="m", input_tokens=1, output_tokens=1),
    "finalize": lambda client: client.balances.finalize("lock_1", "release"),
    "attach": lambda client: client.billing.attach("ada", "pro"),
}
UNDER_A_KEY: dict[str, Call] = {
    "check": lambda client: client.balances.check("ada", "ai_usage", send_event=True, idempotency_key="k1"),
    "track": lambda client: client.balances.track("ada", feature_id="ai_usage", idempotency_key="k1"),
    "refund": lambda client: client.balances.track("ada", feature_id="ai_usage", value=-1, idempotency_key="k1"),
    "tokens": lambda client: client.balances.track_tokens(
        "ada", model_id="m", input_tokens=1, output_tokens=1, idempotency_key="k1"
    ),
    "finalize": lambda client: client.balances.finalize("lock_1", "release", idempotency_key="k1"),
}
HOLDING: dict[str, Call] = {
    "lock": lambda client: client.balances.check("ada", "ai_usage", lock=LOCK),
    "lock under a key": lambda client: client.balances.check("ada", "ai_usage", lock=LOCK, idempotency_key="k1"),
}

ANSWER = httpx.Response(
    200,
    json={**ALLOWED, **TRACKED, "id": "ada", "list": [], "success": True, "url": "https://x.y", "payment_url": None},
)

# Failures, the error each ends in, and for whom it is repeated.
FAILURES: dict[str, tuple[Any, type[AutumnError], tuple[dict[str, Call], ...]]] = {
    "connection refused": (httpx.ConnectError("no"), ConnectFailed, (READING, MOVING, UNDER_A_KEY, HOLDING)),
    "connecting timed out": (httpx.ConnectTimeout("no"), ConnectFailed, (READING, MOVING, UNDER_A_KEY, HOLDING)),
    "429": (httpx.Response(429, text="Too many"), RateLimited, (READING, MOVING, UNDER_A_KEY, HOLDING)),
    "429, come back now": (
        httpx.Response(429, headers={"retry-after": "0"}),
        RateLimited,
        (READING, MOVING, UNDER_A_KEY, HOLDING),
    ),
    "dropped": (httpx.RemoteProtocolError("gone"), NoAnswer, (READING, UNDER_A_KEY, HOLDING)),
    "reset": (httpx.ReadError("reset"), NoAnswer, (READING, UNDER_A_KEY, HOLDING)),
    "timed out": (httpx.ReadTimeout("slow"), NoAnswer, (HOLDING,)),
    "500": (httpx.Response(500, json={"code": "internal_error"}), ServerFailure, (READING, HOLDING)),
    "502": (httpx.Response(502, text="<html>"), ServerFailure, (READING, HOLDING)),
    "503, come back now": (httpx.Response(503, headers={"retry-after": "0"}), ServerFailure, (READING, HOLDING)),
    "no free connection": (httpx.PoolTimeout("full"), Overloaded, ()),
    "another shape": (httpx.Response(200, json=[]), UnexpectedAnswer, ()),
    "400": (httpx.Response(400, json={"code": "invalid_inputs"}), RequestRejected, ()),
    "404": (httpx.Response(404, json={"code": "customer_not_found"}), RequestRejected, ()),
    "409": (httpx.Response(409, json={"code": "duplicate_idempotency_key"}), DuplicateRequest, ()),
}
KINDS = {"reading": READING, "moving": MOVING, "under a key": UNDER_A_KEY, "holding": HOLDING}
CASES = [
    pytest.param(call, *row[:2], calls in row[2], id=f"{kind} {name}, {failure}")
    for kind, calls in KINDS.items()
    for name, call in calls.items()
    for failure, row in FAILURES.items()
]

pytestmark = pytest.mark.usefixtures("_short_pauses")


@pytest.fixture
async def client(settings: AutumnSettings, autumn: Any) -> Any:
    """One client is enough here: repeating is decided above the transports."""
    client = AutumnClient(settings)
    yield client
    await client.aclose()


@pytest.mark.parametrize(("call", "failure", "error", "repeated"), CASES)
async def test_repeats_only_what_is_safe(
    call: Call, failure: Any, error: type[AutumnError], repeated: bool, client: AutumnClient, autumn: Any
) -> None:
    """A call that moves credits is sent once unless nothing was done or a key forbids doing it twice."""
    route = autumn.route().mock(side_effect=[failure, ANSWER])
    if repeated:
        await call(client)
        assert route.call_count == 2
    else:
        with pytest.raises(error):
            await call(client)
        assert route.call_count == 1


async def test_a_repetition_is_the_same_request(client: AutumnClient, autumn: Any) -> None:
    """The second attempt carries the same key and the same body, which is what makes it safe."""
    route = autumn.post("/balances.track").mock(side_effect=[httpx.ReadError("reset"), ANSWER])
    await client.balances.track("ada", value=2, feature_id="ai_usage", idempotency_key="k1")
    first, second = (call.request for call in route.calls)
    assert first.content == second.content
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == "k1"


async def test_never_repeats_an_unverified_check(client: AutumnClient, autumn: Any) -> None:
    """202 with an event may have deducted already, so asking again could deduct twice."""
    route = autumn.post("/balances.check").respond(202, json={**ALLOWED, "balance": None})
    with pytest.raises(NotVerified):
        await client.balances.check("ada", "ai_usage", send_event=True)
    assert route.call_count == 1


@pytest.mark.parametrize(("max_retries", "sent"), [(0, 1), (1, 2), (2, 3), (5, 6)])
async def test_gives_up_after_max_retries(max_retries: int, sent: int, settings: AutumnSettings, autumn: Any) -> None:
    """The setting counts repetitions, and the last failure is the one that is raised."""
    route = autumn.post("/plans.list").mock(side_effect=[*[httpx.ReadError("reset")] * (sent - 1), httpx.Response(500)])
    client = AutumnClient(settings.model_copy(update={"max_retries": max_retries}))
    with pytest.raises(ServerFailure):
        await client.plans.list()
    assert route.call_count == sent


async def test_waits_out_a_time_out_of_a_hold_once(client: AutumnClient, autumn: Any) -> None:
    """A hold is worth one more wait; a customer is not kept for a third."""
    route = autumn.post("/balances.check").mock(side_effect=httpx.ReadTimeout("slow"))
    with pytest.raises(NoAnswer) as raised:
        await client.balances.check("ada", "ai_usage", lock=LOCK)
    assert raised.value.timed_out
    assert route.call_count == 2


async def test_a_hold_that_got_through_is_told_from_one_that_failed(client: AutumnClient, autumn: Any) -> None:
    """After a lost answer Autumn refuses the second hold, and that says that the first one stands."""
    taken = httpx.Response(409, json={"code": "lock_already_exists", "message": "Lock lock_1 already exists"})
    autumn.post("/balances.check").mock(side_effect=[httpx.ReadError("reset"), taken])
    with pytest.raises(LockAlreadyExists):
        await client.balances.check("ada", "ai_usage", lock=LOCK)


DUPLICATE = httpx.Response(409, json={"code": "duplicate_idempotency_key", "message": "Another request with key k1"})


@pytest.mark.parametrize(
    ("before", "error"),
    [
        ([], DuplicateRequest),
        ([httpx.ConnectError("no")], DuplicateRequest),
        ([httpx.Response(429, headers={"retry-after": "0"})], DuplicateRequest),
        ([httpx.ReadError("reset")], NoAnswer),
        ([httpx.ReadError("reset"), httpx.ConnectError("no")], NoAnswer),
    ],
    ids=["at once", "after a refusal", "after a 429", "after a drop", "after a drop and a refusal"],
)
async def test_takes_a_duplicate_for_its_own_only_after_a_lost_answer(
    before: list[Any], error: type[AutumnError], client: AutumnClient, autumn: Any
) -> None:
    """A key that is taken is the caller's mistake, unless an attempt of this very call may have taken it."""
    autumn.post("/balances.track").mock(side_effect=[*before, DUPLICATE])
    with pytest.raises(error):
        await client.balances.track("ada", feature_id="ai_usage", idempotency_key="k1")


async def test_waits_as_long_as_autumn_says(client: AutumnClient, autumn: Any) -> None:
    """Retry-After is honoured where it is short."""
    autumn.post("/plans.list").mock(side_effect=[httpx.Response(429, headers={"retry-after": "1"}), ANSWER])
    begun = time.monotonic()
    await client.plans.list()
    assert 0.95 < time.monotonic() - begun < 5


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (503, ServerFailure)])
async def test_does_not_make_a_customer_wait_for_long(
    status: int, error: type[RateLimited | ServerFailure], client: AutumnClient, autumn: Any
) -> None:
    """A longer Retry-After is handed to the caller, who can tell the customer when to come back."""
    route = autumn.post("/plans.list").respond(status, headers={"retry-after": "30"})
    with pytest.raises(error) as raised:
        await client.plans.list()
    assert raised.value.retry_after == 30
    assert route.call_count == 1


@pytest.mark.parametrize("written", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", "-1", "1.5", "0x3", ""])
async def test_ignores_a_retry_after_that_is_no_number_of_seconds(
    written: str, settings: AutumnSettings, autumn: Any
) -> None:
    """What cannot be read is not guessed at."""
    autumn.post("/plans.list").respond(503, headers={"retry-after": written})
    client = AutumnClient(settings.model_copy(update={"max_retries": 0}))
    with pytest.raises(ServerFailure) as raised:
        await client.plans.list()
    assert raised.value.retry_after is None


async def test_a_cancelled_call_is_not_repeated(client: AutumnClient, autumn: Any) -> None:
    """Who no longer waits causes no more requests."""
    arrived = []
    began = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        arrived.append(request)
        began.set()
        await asyncio.sleep(60)
        return ANSWER

    autumn.post("/plans.list").mock(side_effect=slow)
    task = asyncio.create_task(client.plans.list())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(arrived) == 1


async def test_bounds_a_call_as_a_whole(settings: AutumnSettings, autumn: Any) -> None:
    """The time-out of the settings holds on a client with a longer one, and says what it was."""

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return ANSWER

    autumn.post("/plans.list").mock(side_effect=slow)
    async with httpx.AsyncClient(timeout=60) as passed_in:
        client = AutumnClient(settings.model_copy(update={"timeout": 0.05}), http_client=passed_in)
        with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s") as raised:
            await client.plans.list()
    assert raised.value.timed_out


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause doubles up to two seconds, and jitter keeps processes that failed together apart."""
    monkeypatch.setattr(_calls, "_FIRST_BACKOFF", 0.1)
    for attempt, ceiling in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], start=1):
        pauses = [_calls._backoff(attempt) for _ in range(200)]
        assert ceiling / 2 <= min(pauses) < max(pauses) <= ceiling
        assert len(set(pauses)) > 100


def test_the_key_of_these_tests_is_no_real_one() -> None:
    """Nothing here could reach a real account."""
    assert KEY.startswith("am_sk_test_")


@pytest.mark.parametrize(
    "last",
    [
        httpx.ConnectError("no"),
        httpx.Response(429, text="Too many"),
        httpx.Response(429, headers={"retry-after": "60"}),
    ],
    ids=["refused", "429", "429, come back later"],
)
@pytest.mark.parametrize("name", sorted(UNDER_A_KEY))
async def test_nothing_sent_at_last_does_not_undo_what_may_have_happened(
    name: str, last: Any, client: AutumnClient, autumn: Any
) -> None:
    """After a lost answer, a last attempt that never got through leaves it open whether the first one did."""
    autumn.route().mock(side_effect=[httpx.ReadError("reset"), last, last])
    with pytest.raises(NoAnswer):
        await UNDER_A_KEY[name](client)
