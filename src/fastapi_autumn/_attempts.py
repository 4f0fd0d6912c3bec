"""A caller's own `Idempotency-Key`: one price for one answer, however often they try.

The gate begins an attempt before it opens a charge, and the middleware finishes it when the request has ended. What the
attempts under a key come to is in `settlement/replies.py`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from fastapi_autumn._refusals import billing_unavailable, conflict
from fastapi_autumn._scope import RequestState, header_of
from fastapi_autumn.charge import Charge
from fastapi_autumn.models import Customer
from fastapi_autumn.settlement import Outcome
from fastapi_autumn.settlement.replies import Attempt, Conflict, PaidCharge, RepliesAwayError, standing_after

__all__ = ["begin", "charged_for", "finish", "is_form", "paid_before"]

_log = logging.getLogger("fastapi_autumn")

_CHUNK_BYTES = 64 * 1024
_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# Tasks that nothing else refers to, so that they are not collected while they run.
_releasing: set[asyncio.Task[None]] = set()
_PAUSES_SECONDS: Sequence[float] = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Before each try to note an end."""


def is_form(request: Request) -> bool:
    """Tell whether the request's body is a form."""
    return (header_of(request.scope, b"content-type") or "").lower().startswith(_FORM_TYPES)


async def begin(request: Request, state: RequestState, payer: Customer) -> None:
    """Begin an attempt if the caller has sent a key, once for a request.

    Raises:
        HTTPException: Another attempt under the key stands in its way; or nobody can tell, and so nobody can promise
            that the answer has one price.
    """
    header = state.runtime.charges.settings.idempotency_header
    sent = header_of(request.scope, header.lower().encode("latin-1")) if header else None
    if not sent or state.attempt is not None:
        return
    outbox = state.runtime.outbox
    route = request.scope["path"]
    # Keys are guessed and shared: without the customer in it, one could be served on what another has paid. Without
    # the account, a sandbox and a live service on one database would answer for each other.
    key = _digest(outbox.store.account.key_digest, payer.id, request.method, route, sent)
    fingerprint = await _fingerprint(request)
    try:
        found = await _claim(state, key, fingerprint)
    except RepliesAwayError as error:
        _log.warning("a call is refused because its caller's key cannot be looked up: %s", error)
        raise billing_unavailable() from error
    if isinstance(found, Conflict):
        raise conflict(found)
    state.attempt = found


async def _claim(state: RequestState, key: str, fingerprint: str) -> Attempt | Conflict:
    """Claim the key; whoever is cancelled meanwhile does not leave it claimed by nobody for a day."""
    outbox, replies = state.runtime.outbox, state.runtime.replies
    attempt = replies.new_attempt(key)
    claiming = asyncio.create_task(
        replies.claim(attempt, fingerprint, worker_id=outbox.worker_id, now=outbox.now()), name="autumn-claim"
    )
    try:
        return await asyncio.shield(claiming)
    except (asyncio.CancelledError, RepliesAwayError):
        releasing = asyncio.create_task(_release(state, attempt, claiming), name="autumn-claim")
        _releasing.add(releasing)
        releasing.add_done_callback(_releasing.discard)
        raise


async def _release(state: RequestState, attempt: Attempt, claiming: asyncio.Task[Attempt | Conflict]) -> None:
    with suppress(RepliesAwayError):
        await claiming
    # Also where it failed: it may have got through, and only its answer was lost.
    await _note(partial(state.runtime.replies.release, attempt))


def charged_for(payer: Customer, *what: object) -> str:
    """Name whom a gate charges and what for, down to the price.

    None of it needs to be in the body: a payer may come from a header, and another service that shares the database, or
    this one after its prices have gone up, may serve the next attempt.
    """
    return _digest(*("" if part is None else f"={part}" for part in (payer.id, *what)))


def paid_before(state: RequestState, attempt: Attempt, what: str) -> PaidCharge | None:
    """Return the charge of an earlier attempt that pays for `what`, if one is left."""
    used = {charge.id for _, charge in state.under_key}
    for paid in attempt.paid:
        # A charge that was settled for less has paid for the part that was delivered, and for nothing more.
        if paid.what == what and paid.charge_id not in used and paid.cost >= paid.credits:
            return paid
    return None


async def finish(state: RequestState, attempt: Attempt, outcome: Outcome, *, close: Callable[[], None]) -> None:
    """Note what the attempt came to. Charges that are still open are closed only after that.

    A process that dies in between leaves them open, and they are given back. The other way round, the next attempt
    could be charged for an answer that was paid. But where they are to pay for the next attempt, `close` ends them, and
    the outbox knows, before anybody relies on it: or that attempt would be served on what has been given back.
    """
    charges = [_paid(what, charge, outcome) for what, charge in state.under_key]
    standing = standing_after(attempt, outcome, charges)
    if standing == "paid":
        close()
        await state.runtime.outbox.flush()
    await _note(partial(state.runtime.replies.finish, attempt, standing, charges))


async def _note(write: Callable[[], Awaitable[None]]) -> None:
    for pause in _PAUSES_SECONDS:
        await asyncio.sleep(pause)
        try:
            await write()
        except RepliesAwayError as error:
            _log.warning("the end of an attempt cannot be noted (%s); its caller is told that it still runs", error)
        else:
            return


def _paid(what: str, charge: Charge, outcome: Outcome) -> PaidCharge:
    return PaidCharge(charge.id, charge.credits, charge.cost_after(outcome), what)


async def _fingerprint(request: Request) -> str:
    """Digest everything of a request that its answer depends on, apart from customer and route."""
    # A form is read part by part: another attempt has other boundaries between them, and files may be large.
    if not is_form(request):
        return _digest(request.scope["query_string"], await request.body())
    parts: list[Any] = [request.scope["query_string"]]
    for name, value in (await request.form()).multi_items():
        parts += [name, await _digest_of_file(value) if isinstance(value, UploadFile) else value]
    return _digest(*parts)


async def _digest_of_file(file: UploadFile) -> str:
    digest = hashlib.sha256()
    await file.seek(0)
    while chunk := await file.read(_CHUNK_BYTES):
        digest.update(chunk)
    # The handler reads the file as if nobody had.
    await file.seek(0)
    return f"{file.filename}:{digest.hexdigest()}"


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        # With the length before it, no two lists of parts run together into the same bytes.
        digest.update(len(encoded).to_bytes(8))
        digest.update(encoded)
    return digest.hexdigest()
