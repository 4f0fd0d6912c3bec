"""The emulator as an ASGI app: from bytes to an operation and back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fastapi_autumn._exact import exact
from fastapi_autumn._machine import MACHINE, Machine
from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator._errors import ApiError, duplicate_idempotency_key
from fastapi_autumn.emulator.books._catalog import Catalog
from fastapi_autumn.emulator.books._clock import DAY, Clock
from fastapi_autumn.emulator.books._tokens import Rates, RateTable, genai_rates
from fastapi_autumn.emulator.catalog._load import load_catalog
from fastapi_autumn.emulator.catalog._seeding import WireCatalog, seed, wire_of
from fastapi_autumn.emulator.http import _keys
from fastapi_autumn.emulator.http._call import Answer, Call, Operation, parse_json, parse_object, parse_version
from fastapi_autumn.emulator.http._faults import Fault, Faults
from fastapi_autumn.emulator.http._keys import EMULATOR_KEY, EMULATOR_WEBHOOK_SECRET, PUBLISHABLE_KEY
from fastapi_autumn.emulator.http._signing import sign
from fastapi_autumn.emulator.http._store import State, Store
from fastapi_autumn.emulator.routes import (
    balances,
    billing,
    catalog,
    check,
    control,
    customers,
    entities,
    events,
    features,
    locks,
    organization,
    pages,
    plans,
    previews,
    signin,
    track,
)

_ROUTES: dict[tuple[str, str], Operation] = {}
for _module in (
    customers, check, track, locks, balances, events, entities, features, plans, catalog, billing, previews,
    organization, signin, pages, control,
):  # fmt: skip
    _ROUTES.update(_module.ROUTES)
_PATTERNS = [
    (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), path) for method, path in _ROUTES if "{" in path
]
_CORS = {
    "access-control-allow-methods": "POST,GET,PUT,DELETE,PATCH,OPTIONS",
    "access-control-allow-headers": "Authorization,Content-Type,Accept,X-API-Version,Idempotency-Key",
    "access-control-max-age": "600",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FAILURES = {429: "rate_limit_exceeded", 500: "internal_error", 503: "service_unavailable"}


class _Route(NamedTuple):
    """What a method and a path stand for."""

    operation: Operation | None
    pattern: str | None
    values: dict[str, str]

    def known(self) -> Operation:
        """Return the operation. Where there is none, Autumn looks for a dashboard session, and finds none."""
        if self.operation is None:
            raise ApiError(401, "no_auth_header", "Unauthorized - no session found")
        return self.operation


class Emulator:
    """An ASGI app that answers like Autumn's API 2.3.0, with its own SQLite file.

    `path` is that file; its parent directories are made. Several workers may share one file. `":memory:"` keeps
    everything in this process. `catalog` seeds an empty file: the body of catalog.update (`{"features", "plans"}`),
    or an object with `to_wire()` that returns one. `clock` returns milliseconds since 1970 and replaces the time of
    the machine.

    `rates` finds the prices of models for track_tokens; by default genai-prices is asked where it is installed.

    `event_quiet_ms` makes the event log as late as Autumn's: events are seen when it was quiet for so long (350 there),
    or when 200 wait. By default they are seen at once.

    `machine` gives the time (unless `clock` does), chance and ids, so that a simulated world can hand them in.

    It accepts the key `EMULATOR_KEY`; `add_key` and `revoke_key` change that.
    """

    def __init__(
        self,
        path: str | Path = ".autumn/emulator.db",
        catalog: WireCatalog | Document | None = None,
        clock: Callable[[], int] | None = None,
        rates: RateTable | None = None,
        *,
        event_quiet_ms: int = 0,
        machine: Machine = MACHINE,
    ) -> None:
        self._store = Store(path, machine)
        self._time = clock or machine.wall_ms
        self.clock = Clock(self._time, lambda: self._store.state().clock_offset, self._store.move_clock)
        self.faults = Faults(self._store)
        self.hosts: Collection[str] | None = _LOOPBACK
        """The names under which browsers are answered, and whose pages may call; None: any."""
        self._rates = rates or self._listed_rates
        self._event_quiet_ms = event_quiet_ms
        self._catalog: Catalog | None = None
        self._catalog_revision = -1
        with self._store.transaction():
            self.add_key(EMULATOR_KEY)
            self.add_key(PUBLISHABLE_KEY)
            if catalog is not None and not self._store.row("SELECT 1 FROM features UNION SELECT 1 FROM plans"):
                self.seed(catalog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the emulator speaks HTTP, not {scope['type']}")
        request = Request(scope, receive)
        # Below another application it is that application which decides whom it answers.
        stranger = None if scope.get("root_path") else _stranger(request, self.hosts)
        if stranger is not None:
            await _response(_refusal(ApiError(403, "forbidden", stranger)))(scope, receive, send)
            return
        raw = await request.body()
        state = self._store.state()
        response = await self._respond(request, raw, state, send)
        # By the emulator's own clock, which may have been moved: clients compare it with what they store.
        response.headers["date"] = formatdate(self._now(state) / 1000, usegmt=True)
        await response(scope, receive, send)

    def seed(self, catalog: WireCatalog | Document) -> None:
        """Create or change features and plans; raises the API's error for what Autumn would refuse."""
        seed(self._store, wire_of(catalog), now=self.clock.now())

    def call(self, operation: str, body: Document) -> Any:
        """Do one operation, such as `customers.get`, without HTTP and without faults, and return the answer's body.

        With this a test prepares what an application finds, and looks at what it left behind.

        Raises:
            ApiError: What Autumn would answer.
        """
        state = self._store.state()
        call = Call(
            self._store, self._current_catalog(state), self._now(state), body=body, rates=self._rates,
            event_quiet_ms=self._event_quiet_ms,
        )  # fmt: skip
        with exact():
            self._release_expired(call, state)
            result = self._run(_ROUTES["POST", f"/v1/{operation}"], call, None)
        return result.body if isinstance(result, Answer) else result

    @property
    def messages(self) -> list[Document]:
        """What Autumn would have told webhooks of usage alerts, limits and automatic top-ups, the oldest first."""
        return self._store.messages()

    def signed(self, message: Document, *, secret: str = EMULATOR_WEBHOOK_SECRET) -> tuple[dict[str, str], bytes]:
        """Return headers and body with which Autumn's sender would send a message, for a test that sends it itself.

        It has a new id, and is signed at the emulator's time. By default `Autumn.webhooks` accepts it where the
        emulator runs in the process.
        """
        return sign(message, secret=secret, message_id=self._store.new_id("msg"), seconds=self.clock.now() // 1_000)

    def reset(self) -> None:
        """Forget everything but the keys, and seed again with what this was seeded with."""
        self._call_control(control.reset)

    def add_key(self, key: str) -> None:
        """Accept a key: `am_sk_test...`, `am_sk_live...`, or a publishable one (`am_pk_...`)."""
        _keys.add(self._store, key)

    def revoke_key(self, key: str) -> None:
        """Refuse a key from now on."""
        _keys.revoke(self._store, key)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _now(self, state: State) -> int:
        """Return the emulator's time, without a look into the file for how far its clock was moved."""
        return self._time() + state.clock_offset

    async def _respond(self, request: Request, raw: bytes, state: State, send: Send) -> Response:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if request.method == "OPTIONS":
            headers = _CORS | {"access-control-allow-origin": request.headers.get("origin", "*")}
            return Response(status_code=204, headers=headers, media_type="text/plain; charset=UTF-8")
        if (request.method, path) == ("GET", "/"):
            return Response("Hello from the Autumn emulator", media_type="text/plain; charset=UTF-8")
        route = _find(request.method, path)
        fault = None
        if route.operation is not None and not route.operation.name.startswith("emulator."):
            fault = self.faults.hit(route.operation.name, state.faults_revision)
        if fault is not None:
            instead = await self._before(fault, request, raw, route, send)
            if instead is not None:
                return _response(instead)
        with self._store.lock:
            answer = self._answer(request, raw, route, state)
        if fault is not None:
            await _after(fault, send)
            if fault.kind == "unverified" and answer.status < 400:  # noqa: PLR2004 - a refusal stays one
                return _response(_unverified(route, raw))
        return _response(answer)

    def _answer(self, request: Request, raw: bytes, route: _Route, state: State) -> Answer:
        caller = _keys.Caller("sandbox", publishable=False)
        try:
            if route.operation is None or not route.operation.public:
                key = request.headers.get("authorization")
                caller = _keys.authenticate(self._store, key, request.method, request.scope["path"], route.pattern)
            operation = route.known()
            call = self._call(request, raw, route, state, caller=caller)
            with exact():
                self._release_expired(call, state)
                result = self._run(operation, call, request.headers.get("idempotency-key"))
        except ApiError as error:
            return _refusal(error, caller.env)
        return result if isinstance(result, Answer) else Answer(200, result)

    def _call(self, request: Request, raw: bytes, route: _Route, state: State, *, caller: _keys.Caller) -> Call:
        return Call(
            store=self._store,
            catalog=self._current_catalog(state),
            now=self._now(state),
            body=parse_json(raw) if raw else None,
            raw=raw,
            version=parse_version(request.headers.get("x-api-version")),
            path=route.values,
            query=dict(request.query_params) if request.scope["query_string"] else {},
            authorization=request.headers.get("authorization", ""),
            env=caller.env,
            publishable=caller.publishable,
            origin=lambda: str(request.base_url),
            rates=self._rates,
            event_quiet_ms=self._event_quiet_ms,
        )

    def _listed_rates(self, provider: str, model: str) -> Rates | None:
        return genai_rates(provider, model, self.clock.now())

    def _release_expired(self, call: Call, state: State) -> None:
        if state.next_lock_expiry is not None and state.next_lock_expiry <= call.now:
            with self._store.transaction():
                locks.release_expired(call)

    def _run(self, operation: Operation, call: Call, key: str | None) -> Any:
        """Run an operation, in one transaction if it writes. An error undoes what it wrote, and frees its key."""
        if key is None and not operation.needs_lock(call.body):
            return operation.run(call)
        kept: ApiError | None = None
        result = None
        try:
            with self._store.transaction():
                if key is not None and not self._claim(key, call.now):
                    raise duplicate_idempotency_key(key)
                try:
                    result = operation.run(call)
                except ApiError as error:
                    if not error.keep_writes:
                        raise
                    kept = error
        except ApiError as error:
            if key is not None and error.status == 409:  # noqa: PLR2004 - the one status that keeps the key
                self._claim(key, call.now)
            raise
        if kept is not None:
            raise kept
        return result

    async def _before(self, fault: Fault, request: Request, raw: bytes, route: _Route, send: Send) -> Answer | None:
        """Do what a fault does before the work; an answer means that there is no work."""
        match fault.kind:
            case "delay":
                await asyncio.sleep(fault.delay_ms / 1_000)
            case "reset":
                await _break(send, ConnectionResetError("the emulator was asked to break the connection"))
            case "refuse":
                await _break(send, ConnectionRefusedError("the emulator was asked to refuse the connection"))
            case "fail":
                return _failure(fault)
            case "unverified" if not fault.works:
                return _unverified(route, raw)
            case "slow" | "stall" | "crash":
                return await self._begin(fault, request, raw, send)
        return None

    async def _begin(self, fault: Fault, request: Request, raw: bytes, send: Send) -> Answer | None:
        """Claim the keys of a call, let time pass, and do what the fault says; None: go on with the work."""
        sent = parse_object(parse_json(raw) if raw else None)
        keys = {"header": request.headers.get("idempotency-key"), "body": sent.get("idempotency_key")}
        given = [(kind, key) for kind, key in keys.items() if isinstance(key, str)]
        now, taken = self.clock.now(), list[tuple[str, str]]()
        with self._store.transaction():
            for kind, key in given:
                if not self._store.claim(kind, key, now=now, until=now + DAY):
                    for other, mine in taken:
                        self._store.release(other, mine)
                    return _refusal(duplicate_idempotency_key(key if kind == "header" else f"track:{key}"))
                taken.append((kind, key))
        await asyncio.sleep(fault.delay_ms / 1_000)
        if fault.kind == "crash":
            await _break(send, ConnectionResetError("the emulator was asked to crash in the middle of the work"))
        with self._store.transaction():
            for kind, key in taken:
                self._store.release(kind, key)
        return _failure(fault) if fault.kind == "stall" else None

    def _claim(self, key: str, now: int) -> bool:
        return self._store.claim("header", key, now=now, until=now + DAY)

    def _current_catalog(self, state: State) -> Catalog:
        if self._catalog is None or state.catalog_revision != self._catalog_revision:
            self._catalog = load_catalog(self._store)
            self._catalog_revision = state.catalog_revision
        return self._catalog

    def _call_control(self, operation: Callable[[Call], Any]) -> None:
        operation(Call(store=self._store, catalog=load_catalog(self._store), now=self.clock.now()))


def _find(method: str, path: str) -> _Route:
    found = _ROUTES.get((method, path))
    if found is not None:
        return _Route(found, path, {})
    for wanted, pattern, route in _PATTERNS:
        match = pattern.fullmatch(path) if wanted == method else None
        if match:
            return _Route(_ROUTES[method, route], route, match.groupdict())
    return _Route(None, None, {})


def _response(answer: Answer) -> Response:
    if answer.media_type == "application/json":
        content = json.dumps(answer.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    else:
        content = answer.body
    return Response(content, answer.status, answer.headers, answer.media_type)


def _refusal(error: ApiError, env: str = "sandbox") -> Answer:
    return Answer(error.status, {"message": error.message, "code": error.code, "env": env})


def _failure(fault: Fault) -> Answer:
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if fault.status == 429:  # noqa: PLR2004 - Autumn's rate limiter answers in plain text
        text = "Too many requests, please try again later."
        return Answer(429, text, {"retry-after": "1"} | headers, "text/plain; charset=UTF-8")
    code = _FAILURES.get(fault.status, "injected_fault")
    return Answer(fault.status, {"message": "A fault that was asked for", "code": code, "env": "sandbox"}, headers)


def _unverified(route: _Route, raw: bytes) -> Answer:
    sent = parse_object(parse_json(raw))
    if route.operation is not None and route.operation.name != "balances.check":
        return Answer(202, {"customer_id": sent.get("customer_id"), "value": sent.get("value", 1), "balance": None})
    required = sent.get("required_balance", 1)
    answer = {"allowed": True, "customer_id": sent.get("customer_id"), "required_balance": required}
    return Answer(202, answer | {"balance": None, "flag": None})


async def _after(fault: Fault, send: Send) -> None:
    if fault.kind == "late":
        await asyncio.sleep(fault.delay_ms / 1_000)
    elif fault.kind == "drop":
        await _break(send, ConnectionResetError("the emulator was asked to drop the answer"))


async def _break(send: Send, error: ConnectionError) -> None:
    """Break off in the middle of an answer: a server closes the socket, a caller in this process gets the error."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    raise error


def _stranger(request: Request, hosts: Collection[str] | None) -> str | None:
    """Say why a browser is not answered: another site's page calls, or a name that a stranger pointed here.

    Any page may send simple requests anywhere, and read the answers where its name leads to this machine. Without TLS a
    browser may tell no more of itself than its languages; programs do not, but for Node, which says how it fetches.
    """
    origin, said = request.headers.get("origin"), {*request.headers.keys()}
    telling = {"sec-fetch-site"} if "sec-fetch-mode" in said else {"sec-fetch-site", "accept-language"}
    from_browser = origin is not None or bool(said & telling)
    if hosts is None or not from_browser or request.method == "OPTIONS":  # a question, which does nothing
        return None
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    if host not in hosts:
        return f"The emulator answers browsers under {', '.join(hosts)} and not under {host}"
    is_from_here = origin is None or urlsplit(origin).hostname in hosts
    return None if is_from_here else f"The emulator does not answer pages of {origin}"


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
