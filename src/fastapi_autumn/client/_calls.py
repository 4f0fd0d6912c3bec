"""One call to Autumn: what its failure means, and when it may be repeated.

Both are decided here and nowhere else. A call that moves credits is repeated only when nothing was sent, or under a key
with which Autumn refuses to do it twice.
"""

import asyncio
import random
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from fastapi_autumn._version import __version__
from fastapi_autumn.client._pressure import Breaker, Limiter
from fastapi_autumn.errors import (
    AutumnError,
    DuplicateRequest,
    NoAnswer,
    NotSent,
    NotVerified,
    Overloaded,
    RateLimited,
    ServerFailure,
    Unavailable,
    Uncertain,
    UnexpectedAnswer,
    rejection,
)
from fastapi_autumn.settings import API_VERSION
from fastapi_autumn.transports import Answer, Transport

__all__ = ["Caller", "Repeat"]

_T = TypeVar("_T", bound=BaseModel)
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 2.0


class Repeat(Enum):
    """Which failures of an attempt may be followed by another attempt, besides those where nothing was sent."""

    IF_NOT_SENT = "none: it moves credits and has no key"
    IF_DROPPED = "a broken connection: it moves credits under a key"
    IDEMPOTENT = "all but a time-out, after which nobody waits any longer"
    PATIENT = "all, a time-out once"


class Caller:
    """Sends operations, repeats them where that is safe, and reads the answers."""

    def __init__(
        self, transport: Transport, *, secret_key: SecretStr, max_retries: int, limiter: Limiter, breaker: Breaker
    ) -> None:
        self._transport = transport
        self._secret_key = secret_key
        self._max_retries = max_retries
        self._limiter = limiter
        self._breaker = breaker
        self._headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "x-api-version": API_VERSION,
            # Whatever carries it, so that Autumn's logs say who calls; firewalls are wary of requests without one.
            "user-agent": f"fastapi-autumn/{__version__}",
        }

    async def call(
        self,
        operation: str,
        body: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        repeat: Repeat = Repeat.IDEMPOTENT,
    ) -> Answer:
        """Send one operation, such as `plans.list`, and return Autumn's 2xx answer unread.

        The way to operations that have no method here. By default the call is repeated as if doing it twice were the
        same as doing it once.
        """
        return await self._send(
            "POST",
            operation,
            _json(operation, body),
            customer=body.get("customer_id") or "",
            idempotency_key=idempotency_key,
            repeat=repeat,
        )

    async def get(self, path: str) -> Answer:
        """Read `/v1/{path}`, such as `organization/me`, and return Autumn's 2xx answer unread."""
        return await self._send("GET", path, b"", customer="", idempotency_key=None, repeat=Repeat.IDEMPOTENT)

    async def _send(
        self,
        method: str,
        operation: str,
        content: bytes,
        *,
        customer: str,
        idempotency_key: str | None,
        repeat: Repeat,
    ) -> Answer:
        headers = self._headers
        if idempotency_key:
            headers = {**headers, "idempotency-key": idempotency_key}
        attempt = 0
        may_have_happened = False
        while True:
            try:
                await self._limiter.acquire(operation, customer)
                try:
                    return await self._attempt(method, operation, content, headers)
                finally:
                    self._limiter.release(customer)
            except DuplicateRequest as error:
                if may_have_happened:
                    # The key was ours: the attempt that seemed lost got through, and its answer is gone.
                    raise NoAnswer(operation, "an earlier attempt got through, its answer was lost") from error
                raise
            except Unavailable as error:
                attempt += 1
                may_have_happened = may_have_happened or isinstance(error, Uncertain)
                pause = error.retry_after if error.retry_after is not None else _backoff(attempt)
                if attempt > self._max_retries or not _may_repeat(error, repeat, attempt) or pause > _LONGEST_BACKOFF:
                    if may_have_happened and not isinstance(error, Uncertain):
                        # The last attempt did nothing, but an earlier one may have got through.
                        raise NoAnswer(operation, f"no answer at first, and then: {error.reason}") from error
                    raise
                await asyncio.sleep(pause)

    async def _attempt(self, method: str, operation: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        self._breaker.before(operation)
        try:
            answer = await self._transport.request(
                method, f"/v1/{operation}", body=content, headers=headers, bearer=self._secret_key
            )
            self._judge(operation, answer)
        except AutumnError as error:
            self._breaker.after(error)
            raise
        self._breaker.after(None)
        return answer

    def _judge(self, operation: str, answer: Answer) -> None:
        if answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        retry_after = _seconds(answer.headers.get("retry-after"))
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimited(operation, "Autumn answered 429, too many requests", retry_after=retry_after)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServerFailure(operation, f"Autumn answered {answer.status}", retry_after=retry_after)
        code, message = _code_and_message(answer.body)
        # Whatever stands at AUTUMN_BASE_URL may echo what it was sent.
        message = message.replace(self._secret_key.get_secret_value(), "***")
        raise rejection(operation, status=answer.status, code=code, message=message)

    async def read(
        self,
        model: type[_T],
        operation: str,
        body: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        repeat: Repeat = Repeat.IDEMPOTENT,
        verified: bool = False,
    ) -> _T:
        """Call `operation` and read its answer as `model`; `verified` refuses an answer that failed open."""
        answer = await self.call(operation, body, idempotency_key=idempotency_key, repeat=repeat)
        if verified and answer.status == HTTPStatus.ACCEPTED:
            raise NotVerified(operation, "Autumn answered 202 without looking at the balance")
        try:
            return model.model_validate_json(answer.body)
        except ValidationError as error:
            fields = ", ".join(sorted({".".join(map(str, e["loc"])) or "the body" for e in error.errors()}))
            raise UnexpectedAnswer(operation, f"Autumn's answer has another shape than documented: {fields}") from None


def _json(operation: str, body: Mapping[str, Any]) -> bytes:
    try:
        # NaN is no JSON, and Autumn takes what is none for an empty body.
        return to_json(body, inf_nan_mode="null")
    except PydanticSerializationError as error:
        # Half a surrogate pair, say. Nothing is sent, and the answer is what Autumn's would be.
        message = f"the request cannot be written as JSON ({type(error).__name__})"
        raise rejection(operation, status=400, code="invalid_inputs", message=message) from None


def _code_and_message(body: bytes) -> tuple[str, str]:
    try:
        parsed = from_json(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        return "unknown", "an answer that is not Autumn's; check AUTUMN_BASE_URL"
    return str(parsed.get("code", "unknown")), str(parsed.get("message", ""))


def _seconds(retry_after: str | None) -> float | None:
    # The date form of Retry-After is not read: Autumn sends seconds.
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def _may_repeat(error: Unavailable, repeat: Repeat, attempt: int) -> bool:
    match error:
        case Overloaded():
            # Held back on purpose; who waits for an answer should get one now.
            return False
        case NotSent() | RateLimited():
            return True
        case NoAnswer(timed_out=True):
            return repeat is Repeat.PATIENT and attempt == 1
        case NoAnswer():
            return repeat is not Repeat.IF_NOT_SENT
        case _:
            # A failure frees the idempotency key, so a key protects a repetition only while no answer came.
            return repeat in {Repeat.IDEMPOTENT, Repeat.PATIENT}


def _backoff(attempt: int) -> float:
    ceiling = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** (attempt - 1))
    return ceiling * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
