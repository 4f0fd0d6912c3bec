"""A caller's own `Idempotency-Key`: one price for one answer, however often they try."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Depends, File, Form, Header, UploadFile
from fastapi.responses import StreamingResponse

from attempts import KEY, Talk, ask, code, come_back, hang_up
from fastapi_autumn import Charge, CreditGate, ModelCharge
from fastapi_autumn.settlement.replies import Conflict
from fastapi_autumn.settlement.sql_replies import SqlReplies
from service import Service, until


@pytest.fixture
def talk(tmp_path):
    return Talk(tmp_path)


async def test_answered_once(talk):
    """A second attempt after a whole answer is a 409, and one price was paid."""
    async with talk.service.calling() as client:
        first = await client.post("/ai/chat", json={"model": "large"}, headers=KEY)
        second = await client.post("/ai/chat", json={"model": "large"}, headers=KEY)

        assert first.status_code == 200
        assert code(second) == (409, "already_answered")
        assert second.headers["x-should-retry"] == "false"
        assert await talk.service.used() == 5


async def test_in_progress(talk):
    """A second attempt while the first one runs is a 409 that says when to come back."""
    async with talk.service.calling() as client:
        first = asyncio.create_task(client.post("/ai/chat", json=ask("waits"), headers=KEY))
        await until(lambda: talk.ran)
        # An attempt that was served would wait for what comes only after it.
        async with asyncio.timeout(60):
            second = await client.post("/ai/chat", json=ask("waits"), headers=KEY)
        talk.go_on.set()

        assert code(second) == (409, "in_progress")
        assert second.headers["retry-after"] == "1"
        assert (await first).status_code == 200
        assert await talk.service.used() == 5


async def test_many_attempts_at_once_cost_once(talk):
    """Of twenty attempts that come together one is served."""
    async with talk.service.calling() as client:
        attempts = [client.post("/ai/chat", json={"model": "large"}, headers=KEY) for _ in range(20)]
        statuses = [response.status_code for response in await asyncio.gather(*attempts)]

        assert sorted(statuses) == [200] + [409] * 19
        assert await talk.service.used() == 5


@pytest.mark.parametrize("how", ["fails", "refunds", "is cancelled"])
async def test_what_was_given_back_is_charged_anew(talk, how):
    """An attempt that failed or was cancelled, or that the application has given back, leaves the key free."""
    async with talk.service.serving() as client:
        await client.post("/ai/chat", json=ask(how), headers=KEY)
        second = await come_back(client, how, "/ai/chat")
        third = await come_back(client, how, "/ai/chat")

        assert second.status_code == 200
        assert code(third) == (409, "already_answered")
        assert len(set(talk.ran)) == 2
        assert await talk.service.used() == 5


async def test_kept_failure_counts_as_an_answer(talk):
    """What the application keeps although the status says failure was paid, and is not served again."""
    async with talk.service.calling() as client:
        assert (await client.post("/ai/chat", json=ask("keeps and fails"), headers=KEY)).status_code == 502
        assert code(await client.post("/ai/chat", json=ask("keeps and fails"), headers=KEY))[0] == 409
        assert await talk.service.used() == 5


async def test_refused_attempt_leaves_the_key_free(talk):
    """A 402 has cost nothing, so the same key works once there are credits."""
    async with talk.service.calling() as client:
        for _ in range(10):
            await client.post("/ai/chat", json={"model": "large"})
        refused = await client.post("/ai/chat", json={"model": "large"}, headers=KEY)
        await talk.service.autumn.client.billing.attach("ada", "pro", no_billing_changes=True)

        assert code(refused) == (402, "insufficient_credits")
        assert (await client.post("/ai/chat", json={"model": "large"}, headers=KEY)).status_code == 200


async def test_hang_up_that_was_paid_pays_for_the_next_attempt(talk):
    """After a hang-up the next attempt is served whole on the charge that is there; then the key is answered."""
    async with talk.service.serving() as client:
        await hang_up(client)
        second = await come_back(client)
        third = await come_back(client)

        assert second.text.endswith("the end\n")
        assert second.headers["autumn-credits-charged"] == "5"
        assert code(third) == (409, "already_answered")
        assert len(set(talk.ran)) == 1
        assert await talk.service.used() == 5


async def test_what_the_whole_answer_costs_is_paid(talk):
    """A handler that settles when it is done is paid for the whole answer, also if half of it was paid before."""
    async with talk.service.serving() as client:
        await hang_up(client, "settles at the end")
        second = await come_back(client, "settles at the end")
        third = await come_back(client, "settles at the end")

        assert second.text.endswith("the end\n")
        assert code(third) == (409, "already_answered")
        assert len(set(talk.ran)) == 1
        assert await talk.service.used() == 8


async def test_paid_charge_is_written_before_anybody_relies_on_it(talk, monkeypatch):
    """If the process dies right after, the charge must not be given back while its key says that it is paid."""
    unwritten = []
    finish = SqlReplies.finish

    async def watched(replies: SqlReplies, attempt: Any, standing: Any, charges: Any) -> None:
        if standing == "paid":
            unwritten.append(talk.service.autumn.outbox.unwritten)
        await finish(replies, attempt, standing, charges)

    monkeypatch.setattr(SqlReplies, "finish", watched)
    async with talk.service.serving() as client:
        await hang_up(client)
        await come_back(client)

    assert unwritten == [0]


@pytest.mark.parametrize("team", ["red", "blue"])
async def test_paid_charge_pays_for_its_own_payer(tmp_path, team):
    """Who pays may come from a header: another team's second attempt is not served on the first team's charge."""
    service = Service(tmp_path)
    ran = []
    go_on = asyncio.Event()

    async def payer(x_team: Annotated[str, Header()]) -> str:
        return x_team

    @service.app.post("/ai/both")
    async def both(
        mine: ModelCharge, theirs: Annotated[Charge, Depends(CreditGate(customer=payer))]
    ) -> StreamingResponse:
        ran.append(mine.id)

        async def words() -> AsyncIterator[bytes]:
            yield b"a word" * 2000
            if len(ran) == 1:
                await go_on.wait()

        return StreamingResponse(words())

    async with service.serving() as client:
        headers = KEY | {"x-team": "red"}
        async with client.stream("POST", "/ai/both", json=ask(), headers=headers) as response:
            async for _ in response.aiter_raw():
                break
        async with asyncio.timeout(20):
            while (again := await client.post("/ai/both", json=ask(), headers=KEY | {"x-team": team})).is_client_error:
                assert code(again) == (409, "in_progress")

        assert again.status_code == 200
        assert await service.used("ada") == 5
        assert await service.used("red") == 5
        assert await service.used(team) == 5


async def test_paid_charge_serves_one_more_attempt(talk):
    """A caller who hangs up twice has used the charge up: the third attempt has a price of its own."""
    talk.hanging = 2
    async with talk.service.serving() as client:
        await hang_up(client)
        await hang_up(client)
        third = await come_back(client)

        assert third.status_code == 200
        assert [len(set(talk.ran[:2])), len(set(talk.ran))] == [1, 2]
        assert await talk.service.used() == 10


async def test_failure_does_not_use_the_paid_charge_up(talk):
    """A failure of the service, while it serves on a paid charge, leaves the charge for one more attempt."""
    async with talk.service.serving() as client:
        await hang_up(client, "fails again")
        for _ in range(3):
            with pytest.raises(httpx.RemoteProtocolError):
                await come_back(client, "fails again")

        assert len(talk.ran) == 4
        assert len(set(talk.ran)) == 1
        assert await talk.service.used() == 5


async def test_hang_up_after_a_settled_part_is_charged_anew(talk):
    """Who has paid for the part that they got pays for the next attempt."""
    async with talk.service.serving() as client:
        await hang_up(client, "settles for half")
        assert (await come_back(client, "settles for half")).status_code == 200

        assert len(set(talk.ran)) == 2
        assert await talk.service.used() == 5


async def test_hang_up_that_was_given_back_is_charged_anew(tmp_path):
    """Where hang-ups are given back, the next attempt is charged as the first one was."""
    talk = Talk(tmp_path, refund_on_disconnect=True)
    async with talk.service.serving() as client:
        await hang_up(client)
        assert (await come_back(client)).status_code == 200

        assert len(set(talk.ran)) == 2
        assert await talk.service.used() == 5


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/ai/chat", {"model": "large"}, {"idempotency-key": "another"}, 200),
        ("/ai/chat", {"model": "large"}, {}, 200),
        ("/ai/chat", {"model": "large"}, {"idempotency-key": ""}, 200),
        ("/ai/chat", {"model": "large"}, KEY | {"x-user": "bea"}, 200),
        ("/ai/other", {"model": "large"}, KEY, 200),
        ("/ai/chat", {"model": "small"}, KEY, 422),
        ("/ai/chat?x=1", {"model": "large"}, KEY, 422),
        ("/ai/chat", {"model": "large"}, KEY, 409),
    ],
)
async def test_key_is_bound_to_customer_route_and_request(talk, path, body, headers, status):
    """Another customer, route or key is another answer; another body or query under one key is a mistake."""
    async with talk.service.calling() as client:
        await client.post("/ai/chat", json={"model": "large"}, headers=KEY)
        response = await client.post(path, json=body, headers=headers)

        assert response.status_code == status
        if status == 422:
            assert code(response) == (422, "idempotency_key_reused")


async def test_forms_and_files_are_part_of_the_request(tmp_path):
    """A form is the same request if its fields and its files are; the handler still reads the file from its start."""
    service = Service(tmp_path)

    @service.app.post("/ai/transcribe")
    async def transcribe(
        model: Annotated[str, Form()], file: Annotated[UploadFile, File()], charge: ModelCharge
    ) -> Any:
        return (await file.read()).decode()

    async def send(content: bytes, name: str = "a.txt") -> httpx.Response:
        return await client.post(
            "/ai/transcribe", data={"model": "large"}, files={"file": (name, content)}, headers=KEY
        )

    async with service.calling() as client:
        assert (await send(b"hello")).json() == "hello"
        assert code(await send(b"hello")) == (409, "already_answered")
        assert code(await send(b"jello")) == (422, "idempotency_key_reused")
        assert code(await send(b"hello", "b.txt")) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("header", ["X-Request-Id", ""])
async def test_name_of_the_header_is_a_setting(tmp_path, header):
    """The header can have another name, or none: then nobody's header means anything."""
    talk = Talk(tmp_path, idempotency_header=header)
    sent = {header: "one"} if header else KEY
    async with talk.service.calling() as client:
        statuses = [(await client.post("/ai/chat", json=ask(), headers=sent)).status_code for _ in range(2)]

        assert statuses == ([200, 409] if header else [200, 200])


@pytest.mark.parametrize(
    ("gate", "paid"), [(CreditGate(idempotent=False), 10), (CreditGate(bypass=lambda _: True), 0)], ids=["off", "free"]
)
async def test_some_calls_know_no_keys(tmp_path, gate, paid):
    """A gate with `idempotent=False` charges each attempt, and a call that is not billed can be repeated."""
    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(charge: Annotated[Charge, Depends(gate)]) -> Any:
        return charge.id

    async with service.calling() as client:
        for _ in range(2):
            assert (await client.post("/ai/chat", json={"model": "large"}, headers=KEY)).status_code == 200
        assert await service.used() == paid


async def test_each_gate_of_a_route_finds_its_own_charge(tmp_path):
    """An attempt on a route with two gates is served on both charges of the one that was paid."""
    service = Service(tmp_path)
    image, text = CreditGate(properties={"part": "image"}), CreditGate(properties={"part": "text"})
    never, ids = asyncio.Event(), []

    @service.app.post("/ai/stream")
    async def stream(
        first: Annotated[Charge, Depends(image)], second: Annotated[Charge, Depends(text)]
    ) -> StreamingResponse:
        ids.append((first.id, second.id))
        waits = len(ids) == 1

        async def words() -> AsyncIterator[bytes]:
            yield b"a word\n" * 2000
            if waits:
                await never.wait()

        return StreamingResponse(words())

    async with service.serving() as client:
        await hang_up(client)
        assert (await come_back(client)).status_code == 200

        assert len(ids) == 2
        assert len(set(ids)) == 1
        assert await service.used() == 10


async def test_paid_charge_pays_for_nothing_dearer(tmp_path):
    """Who hung up on a cheap model, named in a header, is charged anew for a dear one under the same key."""
    service, never = Service(tmp_path), asyncio.Event()

    def named(x_model: Annotated[str, Header()]) -> str:
        return x_model

    @service.app.post("/ai/stream")
    async def stream(charge: Annotated[Charge, Depends(CreditGate(model=named))]) -> StreamingResponse:
        async def words() -> AsyncIterator[bytes]:
            yield b"a word\n" * 2000
            if charge.model == "small":
                await never.wait()

        return StreamingResponse(words())

    async with service.serving() as client:
        client.headers["x-model"] = "small"
        await hang_up(client)
        client.headers["x-model"] = "large"
        second = await come_back(client)

        assert second.headers["autumn-credits-charged"] == "5"
        assert await service.used() == 6


async def test_charge_that_was_given_back_pays_for_nothing(tmp_path):
    """A charge that only the second attempt opened, and that its failure gave back, does not pay for the third."""
    service, never, ran = Service(tmp_path), asyncio.Event(), []
    extra = CreditGate(model=lambda: "small", bypass=lambda request: not ran)

    @service.app.post("/ai/stream")
    async def stream(charge: ModelCharge, more: Annotated[Charge, Depends(extra)]) -> StreamingResponse:
        ran.append(more.credits)

        async def words() -> AsyncIterator[bytes]:
            attempt = len(ran)
            yield b"a word\n" * 2000
            if attempt == 1:
                await never.wait()
            if attempt == 2:
                raise ValueError

        return StreamingResponse(words())

    async with service.serving() as client:
        await hang_up(client)
        with pytest.raises(httpx.RemoteProtocolError):
            await come_back(client)
        assert (await come_back(client)).status_code == 200

        assert ran == [0, 1, 1]
        assert await service.used() == 6


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_answer_that_the_server_drops_is_not_answered(talk, http):
    """A caller who left while a plain answer was made, and whom it never reached, is served on what they paid."""
    async with talk.service.serving(http=http) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/ai/chat", json=ask("waits"), headers=KEY, timeout=0.3)
        await asyncio.sleep(0.1)
        talk.go_on.set()
        assert (await come_back(client, "waits", "/ai/chat")).status_code == 200

        assert len(talk.ran) == 2
        assert len(set(talk.ran)) == 1
        assert await talk.service.used() == 5


async def test_answer_that_the_server_drops_is_given_back_where_hang_ups_are(tmp_path):
    """With `AUTUMN_REFUND_ON_DISCONNECT` a caller whom a plain answer never reached pays nothing."""
    talk = Talk(tmp_path, refund_on_disconnect=True)
    async with talk.service.serving() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/ai/chat", json=ask("waits"), timeout=0.3)
        await asyncio.sleep(0.1)
        talk.go_on.set()

        assert await talk.service.used() == 0


async def test_workers_know_each_others_keys(tmp_path):
    """A second worker with the same database gives the same answer, and a worker that died was never there."""
    shared = {"emulator_path": tmp_path / "emulator.db"}
    one, two = Talk(tmp_path, **shared), Talk(tmp_path, **shared)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(one.service.calling())
        second = await stack.enter_async_context(two.service.calling())
        running = asyncio.create_task(first.post("/ai/chat", json=ask("waits"), headers=KEY))
        await until(lambda: one.ran)
        assert code(await second.post("/ai/chat", json=ask("waits"), headers=KEY)) == (409, "in_progress")

        outbox = one.service.autumn.outbox
        await outbox.store.leave(outbox.worker_id)
        two.go_on.set()
        assert (await second.post("/ai/chat", json=ask("waits"), headers=KEY)).status_code == 200
        one.go_on.set()
        await running
        assert code(await second.post("/ai/chat", json=ask("waits"), headers=KEY)) == (409, "already_answered")


@contextlib.asynccontextmanager
async def away(talk: Talk) -> AsyncIterator[None]:
    """Have the database fail for what is asked about keys."""
    for statement in ("ALTER TABLE autumn_replies RENAME TO away", "ALTER TABLE away RENAME TO autumn_replies"):
        async with talk.service.autumn.outbox.store.engine.begin() as connection:
            await connection.execute(sa.text(statement))
        if "TO away" in statement:
            yield


async def test_without_the_database_nobody_can_promise(talk):
    """When the keys cannot be looked up, an attempt with one is a 503 that costs nothing; without one it is served."""
    async with talk.service.calling() as client:
        async with away(talk):
            refused = await client.post("/ai/chat", json={"model": "large"}, headers=KEY)
            served = await client.post("/ai/chat", json={"model": "large"})

        assert code(refused) == (503, "billing_unavailable")
        assert served.status_code == 200
        assert (await client.post("/ai/chat", json={"model": "large"}, headers=KEY)).status_code == 200
        assert await talk.service.used() == 10


@pytest.mark.parametrize("paid", [False, True])
async def test_an_attempt_that_is_cancelled_while_it_is_noted_leaves_the_key_free(talk, paid):
    """Neither does the next one wait for an attempt that nobody makes, nor is what was paid before forgotten."""
    inside = httpx.ASGITransport(app=talk.service.app)
    async with (
        talk.service.serving() as client,
        httpx.AsyncClient(transport=inside, base_url="http://service", headers={"x-user": "ada"}) as cancellable,
    ):
        if paid:
            await hang_up(client)
        replies = talk.service.autumn.runtime.replies
        claim, noted, go_on = replies.claim, asyncio.Event(), asyncio.Event()

        async def slow_claim(*arguments: Any, **options: Any) -> Any:
            while isinstance(found := await claim(*arguments, **options), Conflict):
                await asyncio.sleep(0)
            noted.set()
            await go_on.wait()
            return found

        replies.claim = slow_claim
        attempt = asyncio.create_task(cancellable.post("/ai/stream", json=ask(), headers=KEY))
        await noted.wait()
        attempt.cancel()
        await asyncio.wait([attempt])
        replies.claim = claim
        go_on.set()
        talk.go_on.set()

        assert (await come_back(client)).status_code == 200
        assert await talk.service.used() == 5


@pytest.mark.parametrize("paid", [False, True])
async def test_a_claim_whose_answer_is_lost_leaves_the_key_free(talk, paid):
    """It got through, the attempt is refused all the same, and the next one neither waits nor pays what was paid."""
    async with talk.service.serving() as client:
        replies = talk.service.autumn.runtime.replies
        store = replies._store

        async def is_paid() -> bool:
            async with store.connect() as connection:
                return (await connection.execute(sa.text("SELECT standing FROM autumn_replies"))).scalar() == "paid"

        if paid:
            await hang_up(client)
            await until(is_paid)

        class LosesAnAnswer:
            """The store, as callers' keys see it."""

            insert = staticmethod(store.insert)

            @contextlib.asynccontextmanager
            async def begin(self) -> AsyncIterator[Any]:
                async with store.begin() as connection:
                    yield connection
                replies._store = store
                raise OSError("the connection broke after the commit")

        replies._store = LosesAnAnswer()
        refused = await client.post("/ai/stream", json=ask(), headers=KEY)
        talk.go_on.set()

        assert code(refused) == (503, "billing_unavailable")
        assert (await come_back(client)).status_code == 200
        assert await talk.service.used() == 5


async def test_end_that_is_never_noted_still_closes_the_charge(talk, monkeypatch, caplog):
    """When all tries to note an end have failed the log says so, and the charge ends as the request did."""
    monkeypatch.setattr("fastapi_autumn._attempts._PAUSES_SECONDS", (0.0, 0.0))
    async with talk.service.calling() as client:
        first = asyncio.create_task(client.post("/ai/chat", json=ask("waits"), headers=KEY))
        await until(lambda: talk.ran)
        async with talk.service.autumn.outbox.store.engine.begin() as connection:
            await connection.execute(sa.text("DROP TABLE autumn_replies"))
        talk.go_on.set()

        assert (await first).status_code == 200
        assert caplog.text.count("the end of an attempt cannot be noted") == 2
        assert await talk.service.used() == 5


async def test_end_that_cannot_be_noted_is_tried_again(talk, caplog):
    """A database that is away when an answer ends hears of it later; until then the attempt counts as running."""
    async with talk.service.calling() as client:
        first = asyncio.create_task(client.post("/ai/chat", json=ask("waits"), headers=KEY))
        await until(lambda: talk.ran)
        async with away(talk):
            talk.go_on.set()
            await until(lambda: "cannot be noted" in caplog.text)

        assert (await first).status_code == 200
        assert code(await client.post("/ai/chat", json=ask("waits"), headers=KEY)) == (409, "already_answered")
        assert await talk.service.used() == 5
