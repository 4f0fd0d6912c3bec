"""Faults on demand, inside the process and over a real socket."""

import asyncio
import contextlib
import itertools
import socket
from typing import ClassVar

import httpx
import pytest
import uvicorn

from emulator.conftest import CATALOG, EmulatorClient
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator, Fault

TAKE = {"customer_id": "ann", "feature_id": "usage", "required_balance": 5, "send_event": True}


@contextlib.asynccontextmanager
async def served(app):
    """Serve an app on a free port of this machine, and give its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize(("status", "code"), [(500, "internal_error"), (503, "service_unavailable")])
async def test_fail_answers_and_does_nothing(autumn, emulator, status, code):
    """The call gets the status, the balance stays, and the second call is served."""
    emulator.faults.add("balances.check", Fault(kind="fail", status=status, retry_after=7, times=1))
    answer = await autumn.call("balances.check", **TAKE)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (status, code, "7")
    assert await autumn.remaining() == 50
    assert emulator.faults.counts == {"fail": 1}


async def test_a_rate_limit_is_plain_text(autumn, emulator):
    """A 429 looks like the real one: plain text and Retry-After."""
    emulator.faults.add("*", Fault(kind="fail", status=429, times=1))
    answer = await autumn.call("balances.check", **TAKE)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.text == "Too many requests, please try again later."


@pytest.mark.parametrize(
    ("kind", "error", "left"),
    [("drop", ConnectionResetError, 45), ("reset", ConnectionResetError, 50), ("refuse", ConnectionRefusedError, 50)],
)
async def test_broken_connections_inside_the_process(autumn, emulator, kind, error, left):
    """A caller in the process gets the error; only `drop` has done the work."""
    emulator.faults.add("balances.check", Fault(kind=kind, times=1))
    with pytest.raises(error):
        await autumn.call("balances.check", **TAKE)
    assert await autumn.remaining() == left


@pytest.mark.parametrize(("kind", "left"), [("drop", 45), ("reset", 50)])
async def test_broken_connections_over_a_socket(emulator, autumn, kind, left):
    """A client at the other end of a socket sees an answer that breaks off."""
    emulator.faults.add("balances.check", Fault(kind=kind, times=1))
    async with served(emulator) as address, httpx.AsyncClient(base_url=address) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/balances.check", json=TAKE, headers={"authorization": f"Bearer {EMULATOR_KEY}"})
    assert await autumn.remaining() == left


@pytest.mark.parametrize(("kind", "left"), [("delay", 50), ("late", 45)])
async def test_slow_answers(autumn, emulator, kind, left):
    """`delay` waits before the work and `late` after it: a caller who gives up finds it undone, or done."""
    emulator.faults.add("balances.check", Fault(kind=kind, delay_ms=200, times=1))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(autumn.call("balances.check", **TAKE), 0.05)
    assert await autumn.remaining() == left


@pytest.mark.parametrize(("works", "left"), [(False, 50), (True, 45)])
async def test_unverified_is_autumn_failing_open(autumn, emulator, works, left):
    """202, allowed, no balance; whether the credits were taken is up to the fault."""
    emulator.faults.add("balances.check", Fault(kind="unverified", works=works, times=1))
    answer = await autumn.call("balances.check", **TAKE)
    assert answer.status_code == 202
    assert answer.json() == {
        "allowed": True, "customer_id": "ann", "required_balance": 5, "balance": None, "flag": None,
    }  # fmt: skip
    assert await autumn.remaining() == left


async def test_an_unverified_track_has_the_shape_of_a_track(autumn, emulator):
    """Track fails open with its own shape: the value, and no balance."""
    emulator.faults.add("*", Fault(kind="unverified", times=1))
    answer = await autumn.call("balances.track", customer_id="ann", feature_id="usage")
    assert (answer.status_code, answer.json()) == (202, {"customer_id": "ann", "value": 1, "balance": None})


async def test_a_probability_with_a_seed_hits_the_same_calls_every_time(autumn, emulator):
    """Chaos can be repeated: the same seed fails the same calls."""

    async def run():
        emulator.faults.clear()
        emulator.faults.add("balances.check", Fault(kind="fail", probability=0.5, seed=4))
        answers = [await autumn.call("balances.check", customer_id="ann", feature_id="usage") for _ in range(20)]
        return [answer.status_code for answer in answers]

    first = await run()
    assert await run() == first
    assert set(first) == {200, 503}
    assert emulator.faults.counts == {"fail": first.count(503)}


async def test_workers_share_faults(tmp_path):
    """A fault that is to hit once hits one call, whichever worker gets it."""
    one, two = (Emulator(tmp_path / "e.db", catalog=CATALOG) for _ in range(2))
    one.faults.add("customers.get_or_create", Fault(kind="fail", times=1))
    async with EmulatorClient(two) as second, EmulatorClient(one) as first:
        statuses = [
            (await client.call("customers.get_or_create", customer_id="ann")).status_code for client in (second, first)
        ]
    assert statuses == [503, 200]
    assert one.faults.counts == {"fail": 1}
    one.close()
    two.close()


async def test_faults_are_switched_over_http(emulator, autumn):
    """Another process adds a fault, sees it counted, and clears it; nonsense is refused."""
    fault = {"operation": "balances.check", "kind": "fail", "times": 2}
    assert (await autumn.post("/emulator/faults", json=fault)).json()["active"][0]["left"] == 2
    assert (await autumn.call("balances.check", **TAKE)).status_code == 503
    assert (await autumn.get("/emulator/faults")).json()["counts"] == {"fail": 1}
    assert (await autumn.delete("/emulator/faults")).json() == {"active": [], "counts": {}}
    assert (await autumn.call("balances.check", **TAKE)).status_code == 200
    assert (await autumn.post("/emulator/faults", json={"kind": "explode"})).status_code == 400
    assert (await autumn.post("/emulator/faults", json={"kind": "fail", "probability": 2})).status_code == 400


@pytest.mark.parametrize(("kind", "first", "again", "left"), [("slow", 200, 409, 45), ("stall", 503, 200, 45)])
async def test_a_key_is_claimed_when_the_work_begins(autumn, emulator, kind, first, again, left):
    """A repetition meanwhile is a 409 either way; the key stays used by what was done, and is free after a failure."""
    emulator.faults.add("balances.check", Fault(kind=kind, delay_ms=100, times=1))
    key = {"idempotency-key": "once"}
    begun = asyncio.create_task(autumn.call("balances.check", headers=key, **TAKE))
    while not emulator.faults.counts:
        await asyncio.sleep(0)
    assert (await autumn.call("balances.check", headers=key, **TAKE)).status_code == 409
    assert await autumn.remaining() == 50
    assert (await begun).status_code == first
    assert (await autumn.call("balances.check", headers=key, **TAKE)).status_code == again
    assert await autumn.remaining() == left


async def test_a_repetition_can_be_the_one_that_is_slow(autumn, emulator):
    """A call whose key somebody holds is refused at once, by the key of its body too, and claims nothing itself."""
    emulator.faults.add("balances.track", Fault(kind="slow"))
    use = {"customer_id": "ann", "feature_id": "usage", "idempotency_key": "use"}
    assert (await autumn.call("balances.track", **use)).status_code == 200
    repeated = await autumn.call("balances.track", headers={"idempotency-key": "other"}, **use)
    assert (repeated.status_code, repeated.json()["code"]) == (409, "duplicate_idempotency_key")
    emulator.faults.clear()
    fresh = use | {"idempotency_key": "new"}
    assert (await autumn.call("balances.track", headers={"idempotency-key": "other"}, **fresh)).status_code == 200
    assert await autumn.remaining() == 48


async def test_a_crash_leaves_a_key_claimed_and_the_work_undone(autumn, emulator):
    """The server died between the two: the key is used for a day, and nothing was taken."""
    emulator.faults.add("balances.check", Fault(kind="crash", times=1))
    key = {"idempotency-key": "once"}
    with pytest.raises(ConnectionResetError):
        await autumn.call("balances.check", headers=key, **TAKE)
    assert (await autumn.call("balances.check", headers=key, **TAKE)).status_code == 409
    assert await autumn.remaining() == 50


async def test_a_probability_without_a_seed_is_the_machine_s(time):
    """A simulated world that hands in its own chance decides which calls are hit."""

    class Machine:
        draws: ClassVar = [0.9, 0.1]

        def wall_ms(self):
            return time.now

        def steady(self):
            return 0.0

        def uniform(self, low, high):
            return low + (high - low) * self.draws.pop(0)

        def new_id(self):
            return f"{next(numbers):016}"

    numbers = itertools.count()
    emulator = Emulator(":memory:", catalog=CATALOG, machine=Machine())
    emulator.faults.add("customers.get_or_create", Fault(kind="fail", probability=0.5))
    async with EmulatorClient(emulator) as client:
        first = await client.call("customers.get_or_create", customer_id="ann")
        second = await client.call("customers.get_or_create", customer_id="ann")
    emulator.close()
    assert [first.status_code, second.status_code] == [200, 503]
    assert first.json()["created_at"] == time.now
    assert first.json()["subscriptions"][0]["id"].startswith("cus_prod_0000")
