"""The service under test: a FastAPI application with every kind of route that charges; handlers follow a script.

What a handler does is data of the plan: a list of steps such as `["sleep", 0.5]`, `["settle", "0.3"]`, `["raise"]`.
What it does is also written down for the oracle, at the moment it does it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection

from fastapi_autumn import Autumn, AutumnMiddleware, Charge, CreditGate

__all__ = ["FEATURES", "PRICES", "Application", "Record", "decide"]

PRICES = {"small": 1, "large": 5, "fraction": "0.1"}
FEATURES = {"plenty": 100_000, "scarce": 12, "brief": 15, "topped_up": 0}
"""Feature to what every customer's plan has of it: in a month, and of `brief` in a minute. What is topped up are grants
of their own, which Autumn drops when they are used up."""


class Record:
    """What is known of one call: what the caller got, and what the handler said. The oracle knows nothing else."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.number: int = plan["n"]
        self.loop: Any = None
        self.began_at: float | None = None
        self.reached_at: float | None = None
        self.status: int | None = None
        self.answered_at: float | None = None
        self.chunks = 0
        self.complete_at: float | None = None
        self.left_at: float | None = None
        self.ended_at: float | None = None
        self.error = ""
        self.said: list[tuple[float, str, Any]] = []
        self.failed_at: float | None = None
        self.cancelled = False
        self.verified: bool | None = None
        self.charge_ids: list[str] = []
        self.code = ""
        self.uses: list[tuple[float, str, int]] = []
        self.steps: list[dict[str, Any]] = []
        self.refused_steps: list[tuple[int, Decimal]] = []


_FAILURES = range(1011, 1015)
"""The codes with which a handler says that it failed."""


class _Ask(BaseModel):
    model: str


class _ProducerFailed(Exception):
    """What a model provider's client raises."""


class Application:
    """The application of one service.

    Args:
        autumn: What charges.
    """

    def __init__(self, autumn: Autumn) -> None:
        self.world: Any = None
        self.records: dict[int, Record] = {}
        self.autumn = autumn
        self.app = FastAPI(openapi_url=None)
        self.app.add_middleware(_FailsLate)
        self.app.add_middleware(AutumnMiddleware, autumn=autumn, identify=lambda c: c.headers.get("x-user"))
        for charging in ("deduct", "hold"):
            for feature in FEATURES:
                self._add_routes(charging, feature)

    def record(self, request: HTTPConnection, charge: Charge | None) -> Record:
        """Note that the handler was reached."""
        record = self.records[int(request.headers["x-call"])]
        record.reached_at = self.world.now
        if charge is not None:
            record.verified = charge.verified
            record.charge_ids.append(charge.id)
        self.world.note(record.loop.name, f"call #{record.number}: the handler begins")
        self.world.moment("handling", record.number)
        return record

    async def play(self, record: Record, charge: Charge | None, steps: list[Any]) -> Any:
        """Follow the script; returns the answer that it asks for, if any."""
        for step in steps:
            answer = await self._step(record, charge, *step)
            if answer is not None:
                return answer
        return None

    async def _step(self, record: Record, charge: Charge | None, what: str, value: Any = None) -> Any:
        world = self.world
        match what:
            case "sleep":
                try:
                    await asyncio.sleep(value)
                except asyncio.CancelledError:
                    record.cancelled = True
                    raise
            case "timeout":
                try:
                    async with asyncio.timeout(value):
                        await asyncio.sleep(60)
                except TimeoutError:
                    self.fail(record, "timeout")
                    raise
            case "raise":
                self.fail(record, "raises")
                raise _ProducerFailed
            case "http":
                self.fail(record, f"HTTPException {value}")
                raise HTTPException(value)
            case "status":
                self.fail(record, f"answers {value}")
                return JSONResponse({"error": "no"}, status_code=value)
            case _:
                self.say(record, charge, what, value)
        world.moment("step", record.number, what)
        return None

    def say(self, record: Record, charge: Charge | None, what: str, value: Any) -> None:
        """Have the handler decide about its charge."""
        record.said.append((self.world.now, what, value))
        self.world.note(record.loop.name, f"call #{record.number}: the handler says {what} {value or ''}".rstrip())
        if charge is not None:
            decide(charge, what, value)

    def fail(self, record: Record, how: str) -> None:
        """Note that the one who makes the answer failed."""
        if record.failed_at is None:
            record.failed_at = self.world.now
        self.world.note(record.loop.name, f"call #{record.number}: the handler {how}")

    async def words(self, record: Record, charge: Charge | None, steps: list[Any]) -> AsyncIterator[bytes]:
        """Stream a word for each step called `word`, and follow the others."""
        for step in steps:
            if step[0] == "word":
                yield b"word "
            else:
                await self._step(record, charge, *step)

    def _add_routes(self, charging: str, feature: str) -> None:
        app, prefix = self.app, f"/ai/{charging}/{feature}"
        how: dict[str, Any] = {"charging": charging, "feature_id": feature}
        gate, by_path = CreditGate(**how), CreditGate(model=_model_in_path, **how)
        # Words of the application's own.
        named = CreditGate(properties={"settlement": "monthly", "team": "red"}, **how)
        named_charge = Annotated[Charge, Depends(named)]
        body_charge, path_charge = Annotated[Charge, Depends(gate)], Annotated[Charge, Depends(by_path)]

        @app.post(f"{prefix}/chat")
        async def chat(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            return await self.play(record, charge, record.plan["script"]) or {"ok": True}

        @app.post(f"{prefix}/named")
        async def named_chat(request: Request, ask: _Ask, charge: named_charge) -> Any:
            record = self.record(request, charge)
            return await self.play(record, charge, record.plan["script"]) or {"ok": True}

        @app.post(f"{prefix}/file")
        async def file(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            return await self.play(record, charge, record.plan["script"]) or FileResponse(__file__)

        @app.post(f"{prefix}/sync")
        def sync(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            for step in record.plan["script"]:
                if step[0] in ("settle", "refund", "keep"):
                    self.say(record, charge, step[0], step[1] if step[1:] else None)
                elif step[0] == "raise":
                    self.fail(record, "raises")
                    raise _ProducerFailed
                elif step[0] == "http":
                    self.fail(record, "HTTPException")
                    raise HTTPException(step[1])
            return {"ok": True}

        @app.post(f"{prefix}/stream")
        async def stream(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            return StreamingResponse(self.words(record, charge, record.plan["script"]))

        @app.post(f"{prefix}/path/{{model}}")
        async def path(request: Request, charge: path_charge) -> Any:
            record = self.record(request, charge)
            return await self.play(record, charge, record.plan["script"]) or {"ok": True}

        @app.post(f"{prefix}/unread/{{model}}")
        async def unread(request: Request, charge: path_charge) -> Any:
            record = self.record(request, charge)
            return StreamingResponse(self.words(record, charge, record.plan["script"]))

        @app.websocket(f"{prefix}/socket/{{model}}")
        async def socket(websocket: WebSocket, charge: path_charge) -> None:
            record = self.record(websocket, charge)
            await websocket.accept()
            for step in record.plan["script"]:
                if step[0] == "word":
                    await websocket.send_text("word")
                elif step[0] == "close":
                    if step[1] in _FAILURES:
                        self.fail(record, f"closes with {step[1]}")
                    await websocket.close(step[1])
                    return
                else:
                    await self._step(record, charge, *step)

        @app.post(f"{prefix}/events", response_class=EventSourceResponse)
        async def events(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            async for _ in self.words(record, charge, record.plan["script"]):
                yield {"word": "word"}

        @app.post(f"{prefix}/task")
        async def task(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            answer = await self.play(record, charge, record.plan["script"])
            return answer or JSONResponse({"ok": True}, background=BackgroundTask(_fails))

        @app.post(f"{prefix}/yield")
        async def yields(
            request: Request, ask: _Ask, charge: body_charge, _: Annotated[Any, Depends(_cleans_up)]
        ) -> Any:
            record = self.record(request, charge)
            return await self.play(record, charge, record.plan["script"]) or {"ok": True}

        @app.post(f"{prefix}/inner")
        async def inner(request: Request, ask: _Ask, charge: body_charge) -> Any:
            record = self.record(request, charge)
            return await self.play(record, charge, record.plan["script"]) or {"ok": True}

        @app.post(f"{prefix}/door")
        async def door(request: Request) -> Any:
            record = self.record(request, None)
            record.reached_at = None
            return StreamingResponse(self._through_the_door(record, charging, feature))

    async def _through_the_door(self, record: Record, charging: str, feature: str) -> AsyncIterator[bytes]:
        plan = record.plan
        opened = self.autumn.charge(plan["customer"], plan["model"], charging=charging, feature_id=feature)
        async with opened as charge:
            record.reached_at = self.world.now
            record.verified = charge.verified
            record.charge_ids.append(charge.id)
            async for word in self.words(record, charge, plan["script"]):
                yield word


def decide(charge: Charge, what: str, value: Any) -> None:
    """Do what a handler does that decides about its charge."""
    if what == "settle":
        charge.settle(Decimal(1) / Decimal(value[2:]) if value.startswith("1/") else value)
    elif what == "refund":
        charge.refund()
    else:
        charge.keep()


class _FailsLate:
    """An inner middleware that fails after the answer, as one does whose commit fails."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http" and scope["path"].endswith("/inner"):
            raise OSError("the commit after the answer failed")


def _model_in_path(model: str) -> str:
    return model


async def _fails() -> None:
    raise RuntimeError("the background task failed")


async def _cleans_up() -> AsyncIterator[None]:
    with contextlib.nullcontext():
        yield
    raise RuntimeError("the clean-up failed")
