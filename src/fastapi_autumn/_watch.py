"""What passes through the middleware in one request: it is noted, and where it is a refusal, put into other words."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus

from anyio import CancelScope
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from fastapi_autumn._exact import exact
from fastapi_autumn._refusals import Dialect, answer, body_too_large, worded
from fastapi_autumn._scope import RequestState
from fastapi_autumn.charge import Charge
from fastapi_autumn.pricing import to_json_number
from fastapi_autumn.settlement import Outcome, is_cheaper_when_gone

__all__ = ["Watch"]


class Watch:
    """Passes the messages of one request on, and notes what they say about its end."""

    __slots__ = (
        "_body_bytes",
        "_dialect",
        "_max_body_bytes",
        "_receive",
        "_receiving",
        "_reworded",
        "_scope",
        "_seen",
        "_send",
        "_state",
        "_too_large",
    )

    def __init__(
        self,
        state: RequestState,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        max_body_bytes: int,
        dialect: Dialect | None,
    ) -> None:
        self._state = state
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._dialect = dialect
        # Whether the answer was worded here, so that what the application makes of the refusal goes nowhere.
        self._reworded = False
        self._body_bytes = 0
        self._too_large: HTTPException | None = None
        self._receiving = 0
        # A message that was received for this class and not for the application.
        self._seen: Message | None = None

    async def receive(self) -> Message:
        seen, self._seen = self._seen, None
        return await self._next() if seen is None else seen

    async def _next(self) -> Message:
        self._receiving += 1
        try:
            message = await self._receive()
        finally:
            self._receiving -= 1
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            self._state.ending.caller_left()
        elif self._max_body_bytes and message["type"] == "http.request" and not self._state.ending.started:
            # Once the answer has begun, a caller could end a stream by sending more than is allowed.
            self._body_bytes += len(message.get("body", b""))
            if self._body_bytes > self._max_body_bytes:
                self._too_large = self._too_large or body_too_large()
                raise self._too_large
        return message

    async def send(self, message: Message) -> None:
        if self._too_large is not None and await self.refuse_large_body():
            return
        if self._reworded:
            return
        if message["type"] == "http.response.start":
            if self._state.refused is not None and await self._reword(message):
                return
            given = list(message.get("headers", ()))
            if self._state.runtime.charges.settings.observes:
                message = {**message, "headers": [*given, *_observed_headers(self._state)]}
            elif message["status"] < HTTPStatus.BAD_REQUEST:
                message = {**message, "headers": [*given, *_credit_headers(self._state.charges, given)]}
        await self._pass_on(message)

    async def _reword(self, start: Message) -> bool:
        """Answer a refusal in the caller's dialect in place of the application. False: it has answered otherwise."""
        error, dialect = self._state.refused
        dialect = dialect or self._dialect
        if dialect is None:
            return False
        response = worded(error, dialect)
        if start["status"] != response.status_code:
            return False
        # What other middleware has added stays, such as the headers without which a page may not read the answer.
        own = {name for name, _ in response.raw_headers}
        response.raw_headers = [
            *((name, value) for name, value in start.get("headers", ()) if name.lower() not in own),
            *response.raw_headers,
        ]
        self._reworded = True
        await response(self._scope, self._receive, self._pass_on)
        return True

    async def refuse_large_body(self) -> bool:
        """Answer 413 in place of the application, which may have made anything of the exception. False: no need to."""
        if self._too_large is None:
            return False
        # What has begun is ended by the server, which breaks it off.
        if not self._state.ending.started:
            await answer(self._too_large, self._dialect)(self._scope, self._receive, self._pass_on)
        return True

    async def _pass_on(self, message: Message) -> None:
        ending = self._state.ending
        if self._may_be_gone(message):
            await self._look_for_a_disconnect()
        decides = not message.get("more_body", False)
        if decides:
            ending.sending(message)
        try:
            await self._send(message)
        except OSError:
            ending.send_failed()
            raise
        except asyncio.CancelledError:
            # The server was waiting for the caller to read. Whoever reads up to the end and then stops must not have
            # the price given back by this service's own limit on time.
            if ending.started and message["type"] != "http.response.start":
                ending.send_cut_off()
            raise
        if decides:
            ending.sent(message)

    def _may_be_gone(self, message: Message) -> bool:
        """Tell whether it matters if the caller has left, and nobody is listening for that."""
        state = self._state
        matters = state.attempt is not None or (state.charges and is_cheaper_when_gone(state.runtime.charges.settings))
        return bool(matters) and not self._receiving and state.ending.is_last_part(message)

    async def _look_for_a_disconnect(self) -> None:
        """Ask the server, which may drop the last part without a word when the caller has left."""
        if self._seen is None:
            with CancelScope() as at_once:
                at_once.cancel()
                self._seen = await self._next()


def _observed_headers(state: RequestState) -> list[tuple[bytes, bytes]]:
    """Tell what would have become of a call: nothing is said of those that no gate looked at."""
    codes = [*state.observed, *(charge.would_refuse for charge in state.charges if charge.would_refuse is not None)]
    if not codes and not state.charges:
        return []
    return [(b"autumn-observed", (codes[0] if codes else "allowed").encode())]


def _credit_headers(charges: Sequence[Charge], given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    if not charges or not _is_known(charges, given):
        return []
    balance = charges[-1].balance
    total = Decimal(0)
    remaining = None if balance is None or balance.unlimited else balance.remaining
    with exact():
        for charge in charges:
            cost = charge.cost_after(Outcome.DONE)
            total += cost
            if remaining is not None:
                # What is decided to be given back is counted as there, although it is still on its way.
                remaining += charge.credits - cost
    headers = [(b"autumn-credits-charged", str(to_json_number(total)).encode())]
    if remaining is not None:
        headers.append((b"autumn-credits-remaining", str(to_json_number(remaining)).encode()))
    return headers


def _is_known(charges: Sequence[Charge], given: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether the cost can be said when the answer begins: what a stream will use cannot."""
    if all(charge.closed or not charge.metered for charge in charges):
        return True
    # A body whose length is known is there as a whole, so what it took has been used.
    return any(name.lower() == b"content-length" for name, _ in given)
