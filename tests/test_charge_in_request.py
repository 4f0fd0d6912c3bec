"""`autumn.charge` inside of a request, where a caller may leave."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import WebSocketDisconnect
from fastapi.responses import StreamingResponse

from fastapi_autumn.errors import ConfigurationError
from service import Service, until


def service_with_a_loop(tmp_path: Any, **settings: Any) -> Service:
    """A route that charges inside of the generator of its stream, as an agent's loop does."""
    service = Service(tmp_path, **settings)

    async def words() -> AsyncIterator[str]:
        try:
            async with service.autumn.charge("ada", "large"):
                while True:
                    yield "word "
                    await asyncio.sleep(0.01)
        finally:
            service.closed.append("words")

    @service.app.post("/ai/loop")
    async def loop() -> StreamingResponse:
        return StreamingResponse(words())

    @service.app.post("/ai/timeout")
    async def timeout() -> str:
        async with asyncio.timeout(0.01), service.autumn.charge("ada", "large"):
            await asyncio.sleep(60)
        return "not reached"

    @service.app.post("/ai/caught")
    async def caught() -> str:
        with contextlib.suppress(ValueError):
            async with service.autumn.charge("ada", "large"):
                raise ValueError("the first model")
        async with service.autumn.charge("ada", "small"):
            return "from the second model"

    return service


@pytest.mark.parametrize(("refund_on_disconnect", "paid"), [(False, 5), (True, 0)])
async def test_a_hang_up_costs_what_it_costs_on_a_route(tmp_path, refund_on_disconnect, paid):
    """A caller who leaves in the middle of a charged block pays unless the service says otherwise."""
    service = service_with_a_loop(tmp_path, refund_on_disconnect=refund_on_disconnect)
    async with service.serving() as client:
        async with client.stream("POST", "/ai/loop") as response:
            async for _ in response.aiter_raw():
                break
        await until(lambda: service.closed)

        assert await service.used() == paid


async def test_a_time_out_of_the_application_is_a_failure(tmp_path):
    """A block that the application itself cancels is given back: its caller is still there and gets a 500."""
    service = service_with_a_loop(tmp_path)
    async with service.calling() as client:
        assert (await client.post("/ai/timeout")).status_code == 500

        assert await service.used() == 0


async def test_a_failure_that_is_caught_is_given_back(tmp_path):
    """A block that raises is given back even if the request goes on and succeeds with another one."""
    service = service_with_a_loop(tmp_path)
    async with service.calling() as client:
        assert (await client.post("/ai/caught")).status_code == 200

        assert await service.used() == 1


@pytest.mark.parametrize("customer", ["", "two words", "a/b"])
async def test_an_id_that_autumn_would_mistake_is_refused(tmp_path, customer):
    """An id that Autumn refuses, or takes for somebody else's, is an error before anything is sent."""
    service = Service(tmp_path)
    async with service.autumn.running():
        with pytest.raises(ConfigurationError, match="nobody to charge"):
            async with service.autumn.charge(customer, "large"):
                pytest.fail("not reached")


@pytest.mark.parametrize(("refund_on_disconnect", "paid"), [(False, 5), (True, 0)])
async def test_a_caller_who_leaves_a_websocket_pays(tmp_path, refund_on_disconnect, paid):
    """Outside of a covered request, Starlette's own exception says that the caller has left."""
    service = Service(tmp_path, refund_on_disconnect=refund_on_disconnect)

    async with service.autumn.running():
        with pytest.raises(WebSocketDisconnect):
            async with service.autumn.charge("ada", "large"):
                raise WebSocketDisconnect(1001)

        assert await service.used() == paid


@pytest.mark.parametrize(
    ("error", "paid"), [(None, 5), (ValueError(), 0), (WebSocketDisconnect(1001), 5), (asyncio.CancelledError(), 0)]
)
async def test_hooks_of_a_framework_open_and_close(tmp_path, error, paid):
    """A charge without a block ends as a block would, and the first end counts."""
    service = Service(tmp_path)
    async with service.autumn.running():
        charge = await service.autumn.open("ada", "large")
        service.autumn.close(charge, error)
        service.autumn.close(charge, ValueError("a hook that runs twice"))

        assert await service.used() == paid


async def test_a_hook_may_close_from_a_thread(tmp_path):
    """A framework calls back from wherever it likes, and the credits go back all the same."""
    service = Service(tmp_path)
    async with service.autumn.running():
        charge = await service.autumn.open("ada", "large")
        await asyncio.to_thread(service.autumn.close, charge, ValueError())

        assert charge.closed
        assert await service.used() == 0


@pytest.mark.parametrize(("path", "paid"), [("forgets", 5), ("fails", 0), ("is-cancelled", 0), ("closes", 0)])
async def test_what_no_hook_closes_ends_with_the_request(tmp_path, path, paid):
    """Inside of a request the end of the request decides, also about a call that was cancelled."""
    service = Service(tmp_path)

    @service.app.post("/ai/{how}")
    async def chat(how: str) -> str:
        charge = await service.autumn.open("ada", "large")
        if how == "fails":
            raise ValueError(how)
        if how == "is-cancelled":
            service.autumn.close(charge, asyncio.CancelledError())
            assert not charge.closed
        if how == "closes":
            service.autumn.close(charge, ValueError(how))
        return how

    async with service.calling() as client:
        await client.post(f"/ai/{path}")

        assert await service.used() == paid


async def test_a_batch_is_one_charge(tmp_path):
    """`credits` says what all of it costs, and `settle` what of it was done."""
    service = Service(tmp_path)
    async with service.autumn.running():
        async with service.autumn.charge("ada", "large", credits=5 * 4) as charge:
            charge.settle(5 * 3)

        assert await service.used() == 15


@pytest.mark.parametrize("customer", ["", "two words"])
async def test_open_charges_nobody_neither(tmp_path, customer):
    """An id that Autumn would mistake is an error before anything is sent."""
    service = Service(tmp_path)
    async with service.autumn.running():
        with pytest.raises(ConfigurationError, match="nobody to charge"):
            await service.autumn.open(customer, "large")


async def test_a_limit_on_time_that_the_handler_explains_is_a_failure(tmp_path):
    """The caller stayed to the end, so it was not they who had the work cancelled, whatever the status says."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat() -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit, service.autumn.charge("ada", "large"):
                limit.reschedule(0)
                await asyncio.Event().wait()
        return "The model did not answer in time."

    async with service.calling() as client:
        assert (await client.post("/ai/chat")).status_code == 200
        assert await service.used() == 0


async def test_a_task_that_outlives_its_request_is_outside_of_it(tmp_path):
    """A queue's worker that a request happened to start has no caller who could leave: a cancellation is a failure."""
    service = Service(tmp_path)
    jobs: asyncio.Queue[str] = asyncio.Queue()
    begun = asyncio.Event()
    workers = []

    async def work() -> None:
        customer = await jobs.get()
        async with service.autumn.charge(customer, "large"):
            begun.set()
            await asyncio.Event().wait()

    @service.app.post("/ai/jobs", status_code=202)
    async def start() -> str:
        workers.append(asyncio.create_task(work()))
        return "accepted"

    async with service.calling() as client:
        await client.post("/ai/jobs")
        jobs.put_nowait("carol")
        await begun.wait()
        workers[0].cancel()
        await asyncio.wait(workers)

        assert await service.used("carol") == 0


async def test_a_job_that_ends_after_its_request_is_cancelled_for_nobody(tmp_path):
    """Its block began inside of a request that was answered well; its own limit on time is a failure all the same."""
    service = Service(tmp_path)
    begun = asyncio.Event()
    jobs = []

    async def job() -> None:
        async with service.autumn.charge("ada", "large"):
            begun.set()
            await asyncio.Event().wait()

    @service.app.post("/ai/jobs", status_code=202)
    async def start() -> str:
        jobs.append(asyncio.create_task(job()))
        await begun.wait()
        return "accepted"

    async with service.calling() as client:
        await client.post("/ai/jobs")
        jobs[0].cancel()
        await asyncio.wait(jobs)

        assert await service.used() == 0
