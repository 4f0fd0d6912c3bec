"""Which failed calls are repeated: those that cannot happen twice."""

import asyncio
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
    NoAnswer,
    NotVerified,
    Overloaded,
    RateLimited,
    RequestRejected,
    ServerFailure,
    Uncertain,
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
    "lock": lambda client: client.balances.check("ada", "ai_usage", lock=LOCK),
    "anything else": lambda client: client.call("rewards.redeem", {"customer_id": "ada"}),
}
UNDER_A_KEY: dict[str, Call] = {
    "check": lambda client: client.balances.check("ada", "ai_usage", send_event=True, idempotency_key="k1"),
    "track": lambda client: client.balances.track("ada", feature_id="ai_usage", idempotency_key="k1"),
    "refund": lambda client: client.balances.track("ada", feature_id="ai_usage", value=-1, idempotency_key="k1"),
    "tokens": lambda client: client.balances.track_tokens(
        "ada", model_id="m", input_tokens=1, output_tokens=1, idempotency_key="k1"
    ),
    "finalize": lambda client: client.balances.finalize("lock_1", "release", idempotency_key="k1"),
    "lock": lambda client: client.balances.check("ada", "ai_usage", lock=LOCK, idempotency_key="k1"),
    "anything else": lambda client: client.call("rewards.redeem", {"customer_id": "ada"}, idempotency_key="k1"),
}
BUYING: dict[str, Call] = {
    "attach": lambda client: client.billing.attach("ada", "pro"),
}

ANSWER = httpx.Response(
    200,
    json={**ALLOWED, **TRACKED, "id": "ada", "list": [], "success": True, "url": "https://x.y", "payment_url": None},
)

ANYTHING = (READING, MOVING, UNDER_A_KEY, BUYING)


def said(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": "Autumn's words", "env": "sandbox"})


# Failures, the error each ends in, and for whom it is repeated.
FAILURES: dict[str, tuple[Any, type[AutumnError], tuple[dict[str, Call], ...]]] = {
    "connection refused": (httpx.ConnectError("no"), ConnectFailed, ANYTHING),
    "connecting timed out": (httpx.ConnectTimeout("no"), ConnectFailed, ANYTHING),
    "429": (httpx.Response(429, text="Too many"), RateLimited, (READING, MOVING, UNDER_A_KEY)),
    "429, come back now": (
        httpx.Response(429, headers={"retry-after": "0"}),
        RateLimited,
        (READING, MOVING, UNDER_A_KEY),
    ),
    "dropped": (httpx.RemoteProtocolError("gone"), NoAnswer, (READING,)),
    "reset": (httpx.ReadError("reset"), NoAnswer, (READING,)),
    "timed out": (httpx.ReadTimeout("slow"), NoAnswer, ()),
    "500": (httpx.Response(500, json={"code": "internal_error"}), ServerFailure, (READING,)),
    "502": (httpx.Response(502, text="<html>"), ServerFailure, (READING,)),
    "503, come back now": (httpx.Response(503, headers={"retry-after": "0"}), ServerFailure, (READING,)),
    "no free connection": (httpx.PoolTimeout("full"), Overloaded, ()),
    "another shape": (httpx.Response(200, text="<html>"), UnexpectedAnswer, ()),
    "a proxy's 404": (httpx.Response(404, text="<html>"), UnexpectedAnswer, (READING,)),
    "400": (said(400, "invalid_inputs"), RequestRejected, ()),
    "404": (said(404, "customer_not_found"), RequestRejected, ()),
    "409": (said(409, "duplicate_idempotency_key"), DuplicateRequest, (READING,)),
}
KINDS = {"reading": READING, "moving": MOVING, "under a key": UNDER_A_KEY, "buying": BUYING}
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
    """A call that moves credits is sent once unless nothing was done, key or no key; one that buys, unless unsent."""
    route = autumn.route().mock(side_effect=[failure, ANSWER])
    if repeated:
        await call(client)
        assert route.call_count == 2
    else:
        with pytest.raises(error):
            await call(client)
        assert route.call_count == 1


async def test_a_repetition_is_the_same_request(client: AutumnClient, autumn: Any) -> None:
    """The second attempt after a 429 carries the same key and the same body."""
    route = autumn.post("/balances.track").mock(side_effect=[httpx.Response(429), ANSWER])
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


@pytest.mark.parametrize("name", sorted(UNDER_A_KEY))
async def test_a_key_that_is_taken_is_an_unknown_outcome(name: str, client: AutumnClient, autumn: Any) -> None:
    """A 409 under our own key says nothing about the attempt that took it, and carries what Autumn said."""
    route = autumn.route().mock(return_value=said(409, "duplicate_idempotency_key"))
    with pytest.raises(Uncertain) as raised:
        await UNDER_A_KEY[name](client)
    error = raised.value
    assert (error.status, error.code, error.message) == (409, "duplicate_idempotency_key", "Autumn's words")
    assert route.call_count == 1


async def test_waits_as_long_as_autumn_says(client: AutumnClient, autumn: Any) -> None:
    """Retry-After is honoured where it is short."""
    autumn.post("/plans.list").mock(side_effect=[httpx.Response(429, headers={"retry-after": "1"}), ANSWER])
    began = asyncio.get_running_loop().time()
    await client.plans.list()
    assert asyncio.get_running_loop().time() - began >= 0.99


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


@pytest.mark.parametrize("written", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", "-1", "1.5", "0x3", "", "9" * 400])
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


def test_pauses_grow_and_differ(settings: AutumnSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause doubles up to two seconds, and jitter keeps processes that failed together apart."""
    monkeypatch.setattr(_calls, "_FIRST_BACKOFF", 0.1)
    caller = AutumnClient(settings).plans._caller
    for attempt, ceiling in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], start=1):
        pauses = [caller._backoff(attempt) for _ in range(200)]
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
@pytest.mark.parametrize("name", sorted(READING))
async def test_nothing_sent_at_last_does_not_undo_what_may_have_happened(
    name: str, last: Any, client: AutumnClient, autumn: Any
) -> None:
    """After a lost answer, a last attempt that never got through leaves it open whether the first one did."""
    autumn.route().mock(side_effect=[httpx.ReadError("reset"), last, last])
    with pytest.raises(NoAnswer):
        await READING[name](client)
