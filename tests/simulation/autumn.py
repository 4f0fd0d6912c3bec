"""Autumn's side: keys, an event log that is behind, holds that can be spoiled, over books that somebody else keeps.

The books are the package's emulator in the full layer and a small model in the lean one. What is added here is what
the real server was seen to do where money is at stake: a key is claimed when the work begins, freed when it fails, and
kept when the server dies in between; a hold that arrives after its release can never be closed; an event is in the
log only after 350 ms without another one, or when 200 of them have come together.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from simulation.world import EPOCH_MS, World

__all__ = ["AnsweringBooks", "Asked", "Autumn", "Reply"]

_KEY_SECONDS = 24 * 3600
_QUIET_SECONDS = 0.35
_TOGETHER = 200


class Reply(NamedTuple):
    """What goes back over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    content: dict[str, Any] | None = None
    """What the body says, where that is known without reading it."""


class Asked(NamedTuple):
    """What came in over the wire."""

    operation: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")

    @property
    def moves(self) -> bool:
        """Whether it may leave an event."""
        body = self.body
        return self.operation in ("balances.track", "balances.finalize") or bool(
            self.operation == "balances.check" and (body.get("send_event") or body.get("lock"))
        )

    @property
    def charge_id(self) -> str | None:
        """Which charge it is about."""
        body = self.body
        if "lock_id" in body:
            return body["lock_id"]
        wanted = (body.get("properties") or {}).get("charge_id") or (body.get("filter_by") or {}).get("charge_id")
        return wanted or (body.get("lock") or {}).get("lock_id") or (self.key or "").partition(":")[0] or None


class AnsweringBooks(Protocol):
    """Who does the arithmetic."""

    def answer(self, request: Asked) -> Reply: ...

    def tick(self) -> None:
        """Do what is due by itself."""

    def holds(self) -> set[str]:
        """Return the ids of the holds that stand."""
        ...


def refuse(status: int, code: str, message: str) -> Reply:
    """Answer as Autumn does when it says no."""
    body = json.dumps({"message": message, "code": code, "env": "sandbox"}).encode()
    return Reply(status, {"content-type": "application/json"}, body)


class Autumn:
    """One organisation at Autumn.

    Args:
        world: Where it is.
        books: Who does the arithmetic.
        name: What the story calls it.
    """

    def __init__(self, world: World, books: AnsweringBooks, *, name: str = "autumn") -> None:
        self.world = world
        self.books = books
        self.name = name
        self.horizon_ms = EPOCH_MS
        self.page = 1000
        self.store_delay: Callable[[], float] = lambda: 0.05
        self.busy_until = 0.0
        self.busy_every = 0.3
        self.busy_since = 0.0
        self.expired: set[str] = set()
        self.granted: dict[tuple[str, str], Decimal] = {}
        self._keys: dict[str, float] = {}
        self._together = 0
        self._flush = 0

    def claim(self, key: str | None) -> bool:
        """Claim an idempotency key; False if somebody has it."""
        if key is None:
            return True
        if self._keys.get(key, -1.0) > self.world.now:
            return False
        self._keys[key] = self.world.now + _KEY_SECONDS
        return True

    def free(self, key: str | None) -> None:
        """Forget a key, as Autumn does when the work failed."""
        if key is not None:
            self._keys.pop(key, None)

    def duplicate(self, key: str | None) -> Reply:
        return refuse(409, "duplicate_idempotency_key", f"Another request with idempotency key {key} exists")

    def handle(self, request: Asked) -> Reply:
        """Do the work of one request, in one go."""
        if not self.claim(request.key):
            return self.duplicate(request.key)
        reply = self.work(request)
        if reply.status >= 400 and reply.status != 409:
            self.free(request.key)
        return reply

    def work(self, request: Asked) -> Reply:
        """Do the work of one request whose key is claimed."""
        operation, body = request.operation, request.body
        if operation.startswith("events."):
            body = self._as_far_as_visible(body)
            if operation == "events.list":
                body["limit"] = min(body.get("limit", 50), self.page)
            return self.books.answer(request._replace(body=body))
        reply = self.books.answer(request)
        if operation == "balances.create" and reply.status == 200:
            granted = (body["customer_id"], body["balance_id"].partition(":")[0])
            self.granted[granted] = self.granted.get(granted, Decimal(0)) + Decimal(str(body["included_grant"]))
        if operation == "organization/me" and reply.status == 200:
            reply = reply._replace(body=reply.body.replace(b'"emulator"', f'"{self.name}"'.encode()))
        if reply.status == 200 and request.moves:
            self._log()
            expires_at = (body.get("lock") or {}).get("expires_at")
            if expires_at is not None:
                # Autumn's timer ends a hold, and that is an event too.
                self.world.at(max(0.0, (expires_at - EPOCH_MS) / 1000 - self.world.now) + 0.05, self._expire)
        return reply

    def _expire(self) -> None:
        before = self.books.holds()
        self.books.tick()
        self.expired |= before - self.books.holds()
        self._log()

    def _as_far_as_visible(self, body: dict[str, Any]) -> dict[str, Any]:
        span = dict(body.get("custom_range") or {})
        if not span and "range" in body:
            span["start"] = EPOCH_MS + int(self.world.now * 1000) - 24 * 3600 * 1000
        end = min(span.get("end", self.horizon_ms), self.horizon_ms)
        start = span.get("start", 0)
        if start > end:
            start = end = 1
        rest = {name: value for name, value in body.items() if name != "range"}
        return {**rest, "custom_range": {"start": start, "end": end}}

    def _log(self) -> None:
        """Note that there is an event which the log does not show yet."""
        self._together += 1
        self._flush += 1
        now = self.world.now
        if self._together >= _TOGETHER:
            self._show(self._flush)
            return
        wait = _QUIET_SECONDS
        if now < self.busy_until:
            # Other services' events keep the log waiting until 200 have come together.
            period = self.busy_every * _TOGETHER
            full = self.busy_since + ((now - self.busy_since) // period + 1) * period
            wait = min(full, self.busy_until + _QUIET_SECONDS) - now
            self.world.at(wait, self._show, None)
            return
        self.world.at(wait, self._show, self._flush)

    def _show(self, flush: int | None) -> None:
        if flush is not None and flush != self._flush:
            return
        self._together = 0
        self.world.at(self.store_delay(), self._shown, EPOCH_MS + int(self.world.now * 1000) - 1)

    def _shown(self, horizon_ms: int) -> None:
        self.horizon_ms = max(self.horizon_ms, horizon_ms)


class EmulatorBooks:
    """The package's emulator, asked over ASGI.

    Args:
        emulator: The emulator.
    """

    def __init__(self, emulator: Any) -> None:
        self.emulator = emulator

    def holds(self) -> set[str]:
        """Look into the emulator's file: no operation lists holds."""
        return {row[0] for row in self.emulator._store.rows("SELECT id FROM locks")}

    def tick(self) -> None:
        """Have the emulator end the holds whose time is up."""
        self.emulator.call("features.list", {})

    def answer(self, request: Asked) -> Reply:
        sent: list[Any] = []
        headers = [(k.encode(), v.encode()) for k, v in request.headers.items() if k != "idempotency-key"]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 1),
            "server": ("autumn", 80),
            "state": {},
        }
        body = json.dumps(request.body).encode() if request.method == "POST" else b""

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        coroutine = self.emulator(scope, receive, send)
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        else:
            raise RuntimeError("the emulator waited for something")
        headers_back = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], headers_back, sent[1]["body"])
