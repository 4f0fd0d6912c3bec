"""The ASGI servers and their clients: requests, hang-ups, junk after the answer began, slow readers.

Two kinds of server are drawn: those of ASGI's version 2.3 swallow what is sent to a client that has left, those of 2.4
raise OSError; and some cancel the application's task then.
"""

import asyncio
import json
from typing import Any

from simulation.application import Record
from simulation.loop import ProcessLoop
from simulation.network import CALL
from simulation.world import World

__all__ = ["Exchange", "SocketExchange"]


class Exchange:
    """One request to one worker.

    Args:
        world: Where it happens.
        app: The ASGI application.
        loop: The process that serves it.
        record: Where what the caller gets is written down.
    """

    def __init__(self, world: World, app: Any, loop: ProcessLoop, record: Record) -> None:
        self.world = world
        self.app = app
        self.loop = loop
        self.record = record
        self.client = record.plan["client"]
        self.gone = loop.create_future()
        self.is_gone = False
        self.started = loop.create_future()
        self.task: Any = None
        self.junk_sent = 0
        record.loop = loop
        record.began_at = world.now

    def begin(self) -> None:
        self.world.note(self.loop.name, f"call #{self.record.number} of {self.record.plan['customer']} comes in")
        CALL.set(self.record.number)
        self.task = self.loop.create_task(self.serve())
        CALL.set(None)
        if "leaves" in self.client:
            self.world.at(self.client["leaves"], self.leave)

    def leave(self) -> None:
        """The client hangs up."""
        record = self.record
        if self.is_gone or self.loop.dead or record.ended_at is not None or record.complete_at is not None:
            return
        self.is_gone = True
        record.left_at = self.world.now
        self.world.note("client", f"call #{record.number} is left")
        if not self.gone.done():
            self.gone.set_result(None)
        if self.client.get("cancels") and self.task is not None:
            self.world.at(0.05, self._cancel)

    def _cancel(self) -> None:
        if not self.loop.dead and self.record.ended_at is None:
            self.loop.call_soon(self.task.cancel)

    async def serve(self) -> None:
        self.loop.in_flight += 1
        record = self.record
        try:
            await self.app(self._scope(), self._receive(), self.send)
            self.over()
        except BaseException as error:
            if self.loop.dead:
                # Nothing of a killed process runs; this is Python, which clears away what it left.
                raise
            record.error = type(error).__name__
            if isinstance(error, asyncio.CancelledError):
                record.cancelled = True
            if record.status is None and not self.is_gone:
                record.status = 500
        finally:
            self.loop.in_flight -= 1
        record.ended_at = self.world.now
        if not self.gone.done():
            self.gone.set_result(None)
        if not self.started.done():
            self.started.cancel()
        how = "complete" if record.complete_at is not None else f"broken off {record.error}".rstrip()
        self.world.note(self.loop.name, f"call #{record.number} ends: {record.status} {how}, {record.chunks} parts")
        self.world.moment("ended", record.number)

    def over(self) -> None:
        """The application has returned."""

    def _scope(self) -> dict[str, Any]:
        plan = self.record.plan
        path = f"/ai/{plan['charging']}/{plan['feature']}/{plan['route']}"
        if plan["route"] in ("path", "unread"):
            path += f"/{plan['model']}"
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self.client["spec"]},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"x-user", plan["customer"].encode()),
                (b"x-call", str(plan["n"]).encode()),
                (b"content-type", b"application/json"),
                *([(b"idempotency-key", plan["key"].encode())] if "key" in plan else ()),
            ],
            "client": ("192.0.2.9", 1),
            "server": ("service", 80),
            "state": {},
            "extensions": {"http.response.pathsend": {}} if self.client.get("sends_paths") else {},
        }

    def _receive(self) -> Any:
        body = json.dumps({"model": self.record.plan["model"]}).encode()
        junk = "junk" in self.client
        given = False

        async def receive() -> Any:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": junk}
            if junk and self.junk_sent < self.client["junk"]:
                if not self.started.done():
                    await asyncio.wait([self.started, self.gone], return_when=asyncio.FIRST_COMPLETED)
                if not self.gone.done():
                    self.junk_sent += 1
                    await asyncio.sleep(0.01)
                    return {"type": "http.request", "body": b"x" * 600, "more_body": True}
            if not self.gone.done():
                # A server that knows it says so at once.
                await asyncio.wait([self.gone])
            return {"type": "http.disconnect"}

        return receive

    async def send(self, message: Any) -> None:
        """Take what the application sends."""
        record, world = self.record, self.world
        if self.is_gone:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            if self.client["spec"] >= "2.4":
                raise OSError("the client has left")
            return
        if message["type"] == "http.response.start":
            record.status = message["status"]
            record.answered_at = world.now
            return
        if message["type"] == "http.response.pathsend":
            message = {"body": b"the file", "more_body": False}
        elif message["type"] != "http.response.body":
            return
        if message.get("body"):
            if record.status == 409 and "key" in record.plan:
                record.code = json.loads(message["body"])["detail"]["code"]
            record.chunks += 1
            if not self.started.done():
                self.started.set_result(None)
            if "slow" in self.client:
                await asyncio.sleep(self.client["slow"])
                if self.is_gone:
                    if self.client["spec"] >= "2.4":
                        raise OSError("the client has left")
                    return
        if not message.get("more_body", False):
            record.complete_at = world.now
            if not self.gone.done():
                self.gone.set_result(None)


class SocketExchange(Exchange):
    """One WebSocket. Its answer is complete when the application has returned or closed it, not as a failure."""

    def _scope(self) -> dict[str, Any]:
        plan = self.record.plan
        path = f"/ai/{plan['charging']}/{plan['feature']}/socket/{plan['model']}"
        plain = super()._scope()
        changed = {"type": "websocket", "scheme": "ws", "path": path, "raw_path": path.encode(), "subprotocols": []}
        return {name: value for name, value in plain.items() if name != "method"} | changed

    def _receive(self) -> Any:
        is_connected = False

        async def receive() -> Any:
            nonlocal is_connected
            if not is_connected:
                is_connected = True
                return {"type": "websocket.connect"}
            if not self.gone.done():
                await asyncio.wait([self.gone])
            return {"type": "websocket.disconnect", "code": 1005}

        return receive

    async def send(self, message: Any) -> None:
        """Take what the application sends."""
        record, world = self.record, self.world
        what = message["type"]
        if self.is_gone:
            if what == "websocket.accept":
                record.status = 200
            if self.client["spec"] >= "2.4":
                raise OSError("the client has left")
        elif what == "websocket.accept":
            record.status, record.answered_at = 200, world.now
        elif what == "websocket.send":
            record.chunks += 1
            if "slow" in self.client:
                await asyncio.sleep(self.client["slow"])
        elif what == "websocket.close":
            if record.status is None:
                refused = 402 if message.get("reason") == "insufficient_credits" else 403
                record.status = 503 if message["code"] == 1013 else refused
            if record.failed_at is None:
                record.complete_at = world.now
            self.gone.set_result(None)

    def over(self) -> None:
        """The application has returned, and the server closes what it left open."""
        record = self.record
        if record.complete_at is None and record.failed_at is None and not self.is_gone and record.status == 200:
            record.complete_at = self.world.now
