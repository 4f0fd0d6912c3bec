"""One call to Autumn: what its failure means, and when it may be repeated.

Both are decided here and nowhere else. A call that moves credits is repeated only when nothing was done, with or
without a key: after a lost answer Autumn refuses a second attempt under one key, which says nothing about the first.
"""

import asyncio
import copy
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from fastapi_autumn._machine import Machine
from fastapi_autumn._version import __version__
from fastapi_autumn.client._clock import RemoteClock
from fastapi_autumn.client._pressure import Breakers, Lane, Limiters, lane_of
from fastapi_autumn.errors import (
    AutumnError,
    NoAnswer,
    NotSent,
    NotVerified,
    Overloaded,
    RateLimited,
    ServerFailure,
    Unavailable,
    Uncertain,
    UnexpectedAnswer,
    UnsendableRequest,
    rejection,
)
from fastapi_autumn.settings import API_VERSION
from fastapi_autumn.transports import Answer, ReusingTransport, Transport

__all__ = ["Caller", "Repeat", "parse"]

_T = TypeVar("_T", bound=BaseModel)
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 2.0
_SUCCESS = range(200, 300)
_ACCEPTED = HTTPStatus.ACCEPTED.value
_KEY = re.compile(r"[!-~]{1,255}")
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Repeat(Enum):
    """After which failures of an attempt another may follow."""

    IF_NOT_SENT = "nothing was sent, or Autumn turned it away unread (429)"
    IF_UNREACHED = "nothing was sent; a 429 is Autumn's guard against doing it twice"
    IDEMPOTENT = "all but a time-out: it only reads, or doing it twice is the same as doing it once"


class Caller:
    """Sends operations, repeats them where that is safe, and reads the answers."""

    def __init__(
        self,
        transport: Transport,
        *,
        secret_key: SecretStr,
        max_retries: int,
        limiters: Limiters,
        machine: Machine,
    ) -> None:
        self.clock = RemoteClock(machine)
        self._transport = transport
        self._in_step = {"in_step": True} if isinstance(transport, ReusingTransport) else {}
        self._secret_key = secret_key
        self._max_retries = max_retries
        self._limiters = limiters
        self._breakers = {lane: Breakers(machine.steady) for lane in Lane}
        self.lane: Lane | None = None
        self._machine = machine
        self._headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "x-api-version": API_VERSION,
            # Whatever carries it, so that Autumn's logs say who calls; firewalls are wary of requests without one.
            "user-agent": f"fastapi-autumn/{__version__}",
        }

    def within(self, lane: Lane) -> "Caller":
        """Return a caller over the same connections all of whose calls travel in `lane`."""
        caller = copy.copy(self)
        caller.lane = lane
        return caller

    async def call(
        self,
        operation: str,
        body: Mapping[str, Any] | Sequence[Any],
        *,
        idempotency_key: str | None = None,
        repeat: Repeat = Repeat.IF_NOT_SENT,
    ) -> Answer:
        """Send one operation, such as `plans.list`, and return Autumn's 2xx answer, whose body is JSON.

        The way to operations that have no method here. By default the call is repeated only when nothing was sent, as
        nobody knows what it does; for one that only reads, say `repeat=Repeat.IDEMPOTENT`.

        Raises:
            UnsendableRequest: JSON cannot write `body`, or no header can carry the key.
        """
        answer = await self.ask(operation, body, idempotency_key=idempotency_key, repeat=repeat, is_named=False)
        return _json_answer(operation, answer)

    async def get(self, path: str) -> Answer:
        """Read `/v1/{path}`, such as `organization/me`, and return Autumn's 2xx answer, whose body is JSON."""
        answer = await self._send(
            "GET", path, b"", customer="", idempotency_key=None, repeat=Repeat.IDEMPOTENT, is_named=False
        )
        return _json_answer(path, answer)

    async def ask(
        self,
        operation: str,
        body: Mapping[str, Any] | Sequence[Any],
        *,
        idempotency_key: str | None,
        repeat: Repeat,
        is_named: bool,
    ) -> Answer:
        """Send one operation and return Autumn's 2xx answer unread; `is_named` if it names whom it is about."""
        return await self._send(
            "POST",
            operation,
            _json(operation, body),
            customer=(body.get("customer_id") or "") if isinstance(body, Mapping) else "",
            idempotency_key=idempotency_key,
            repeat=repeat,
            is_named=is_named,
        )

    async def _send(
        self,
        method: str,
        operation: str,
        content: bytes,
        *,
        customer: str,
        idempotency_key: str | None,
        repeat: Repeat,
        is_named: bool,
    ) -> Answer:
        headers = self._headers
        # On a connection that is an answer behind, an answer that names nobody could be that of another call.
        way = {} if is_named else self._in_step
        if idempotency_key:
            headers = {**headers, "idempotency-key": _sendable(operation, idempotency_key)}
        lane = self.lane or lane_of(operation)
        limiter = self._limiters.here()
        attempt = 0
        may_have_happened = False
        while True:
            try:
                if not limiter.take_now(lane, customer):
                    await limiter.acquire(operation, lane, customer)
                try:
                    return await self._attempt(method, operation, content, headers, (lane, customer), way=way)
                finally:
                    limiter.release(lane, customer)
            except Unavailable as error:
                attempt += 1
                may_have_happened = may_have_happened or isinstance(error, Uncertain)
                pause = error.retry_after if error.retry_after is not None else self._backoff(attempt)
                if attempt > self._max_retries or not _may_repeat(error, repeat) or pause > _LONGEST_BACKOFF:
                    if may_have_happened and not isinstance(error, Uncertain):
                        # The last attempt did nothing, but an earlier one may have got through.
                        raise NoAnswer(operation, f"no answer at first, and then: {error.reason}") from error
                    raise
                await asyncio.sleep(pause)

    async def _attempt(
        self,
        method: str,
        operation: str,
        content: bytes,
        headers: Mapping[str, str],
        place: tuple[Lane, str],
        *,
        way: Mapping[str, bool],
    ) -> Answer:
        lane, customer = place
        breakers = self._breakers[lane]
        began = breakers.before(operation, customer)
        sent = self._machine.steady()
        try:
            answer = await self._transport.request(
                method, f"/v1/{operation}", body=content, headers=headers, bearer=self._secret_key, **way
            )
            self._judge(operation, answer)
        except AutumnError as error:
            if isinstance(error, Unavailable):
                # A transport knows paths, and a caller goes by the operation.
                error.operation = operation
            if not isinstance(error, UnexpectedAnswer):
                # A stranger's answer says nothing about Autumn.
                breakers.after(customer, began, error)
            raise
        # Only now: the clock of a stranger in between may say anything.
        self.clock.learn(answer.headers.get("date"), sent=sent)
        breakers.after(customer, began, None)
        return answer

    def _judge(self, operation: str, answer: Answer) -> None:
        status = answer.status
        if status in _SUCCESS:
            return
        retry_after = _seconds(answer.headers.get("retry-after"))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimited(operation, "Autumn answered 429, too many requests", retry_after=retry_after)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServerFailure(operation, f"Autumn answered {status}", retry_after=retry_after, status=status)
        said = _code_and_message(answer.body) if status >= HTTPStatus.BAD_REQUEST else None
        if said is None:
            # A proxy's page, or its redirect: whoever wrote it may have seen the work done before.
            reason = f"an answer with status {status} that is not Autumn's; check AUTUMN_BASE_URL and what is before it"
            raise UnexpectedAnswer(operation, reason, retry_after=retry_after, status=status)
        # Whatever stands at AUTUMN_BASE_URL may echo what it was sent.
        code, message = (text.replace(self._secret_key.get_secret_value(), "***") for text in said)
        raise rejection(operation, status=status, code=code, message=message)

    def _backoff(self, attempt: int) -> float:
        ceiling = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** (attempt - 1))
        return ceiling * self._machine.uniform(0.5, 1)

    async def read(
        self,
        model: type[_T],
        operation: str,
        body: Mapping[str, Any] | Sequence[Any],
        *,
        idempotency_key: str | None = None,
        repeat: Repeat = Repeat.IF_NOT_SENT,
        verified: bool = False,
        about: Callable[[Any], bool] | None = None,
    ) -> _T:
        """Call `operation` and read its answer as `model`.

        Args:
            model: Its shape.
            operation: Such as `balances.check`.
            body: What is asked.
            idempotency_key: Under which Autumn does it once.
            repeat: After which failures.
            verified: Refuse a 202, with which Autumn puts the work off or fails open.
            about: Tells whether the answer names whom it was asked about, so that two mixed up on the way show.
        """
        answer = await self.ask(
            operation, body, idempotency_key=idempotency_key, repeat=repeat, is_named=about is not None
        )
        if verified and answer.status == _ACCEPTED:
            raise NotVerified(operation, "Autumn answered 202 without looking at the balance", status=answer.status)
        return self.understand(model, operation, answer, about=about)

    def understand(self, model: type[_T], operation: str, answer: Answer, *, about: Callable[[Any], bool] | None) -> _T:
        """Read an answer as `parse` does; where it is not to what was asked, leave the connection that brought it.

        A connection that is one answer behind would go on to be, and the next one may name the right customer.
        """
        try:
            return parse(model, operation, answer, about=about)
        except UnexpectedAnswer:
            if isinstance(self._transport, ReusingTransport):
                self._transport.start_afresh()
            raise


def parse(model: type[_T], operation: str, answer: Answer, *, about: Callable[[Any], bool] | None = None) -> _T:
    """Read an answer as `model`, and see whether it is about whom it was asked.

    Raises:
        UnexpectedAnswer: It has another shape, or is about somebody else.
    """
    try:
        read = model.model_validate_json(answer.body)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) or "the body" for e in error.errors()}))
        reason = f"Autumn's answer has another shape than documented: {fields}"
        raise UnexpectedAnswer(operation, reason, status=answer.status) from None
    if about is not None and not about(read):
        reason = "the answer is about another customer or entity than the one asked for"
        raise UnexpectedAnswer(operation, reason, status=answer.status)
    return read


def _json(operation: str, body: Mapping[str, Any] | Sequence[Any]) -> bytes:
    try:
        # NaN is no JSON, and Autumn takes what is none for an empty body.
        return to_json(body, inf_nan_mode="null")
    except PydanticSerializationError as error:
        # Half a surrogate pair, say. The text of the cause would show what was passed.
        reason = f"{operation}: the request cannot be written as JSON ({type(error).__name__}); nothing was sent"
        raise UnsendableRequest(reason) from None


def _sendable(operation: str, key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise UnsendableRequest(f"{operation}: an idempotency key has 1 to 255 visible ASCII characters")
    return key


def _json_answer(operation: str, answer: Answer) -> Answer:
    try:
        from_json(answer.body)
    except ValueError:
        reason = "the answer is not JSON; check AUTUMN_BASE_URL"
        raise UnexpectedAnswer(operation, reason, status=answer.status) from None
    return answer


def _code_and_message(body: bytes) -> tuple[str, str] | None:
    """Return what Autumn says in its own shape, or None where the body is somebody else's."""
    try:
        parsed = from_json(body)
    except ValueError:
        return None
    match parsed:
        case {"code": str(code), "message": str(message)}:
            return code, message
        case _:
            return None


def _seconds(retry_after: str | None) -> float | None:
    # The date form of Retry-After is not read: Autumn sends seconds. More digits than these are no time to wait for.
    return float(retry_after) if retry_after is not None and _SECONDS.fullmatch(retry_after) else None


def _may_repeat(error: Unavailable, repeat: Repeat) -> bool:
    match error:
        case Overloaded():
            # Held back on purpose; who waits for an answer should get one now.
            return False
        case NotSent():
            return True
        case RateLimited():
            return repeat is not Repeat.IF_UNREACHED
        case NoAnswer(timed_out=True):
            return False
        case _:
            return repeat is Repeat.IDEMPOTENT
