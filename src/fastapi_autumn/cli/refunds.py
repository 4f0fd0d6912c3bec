"""`autumn refunds`: what the outbox still has to tell Autumn, for people to look at and decide."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from fastapi_autumn.cli._backend import CommandSettings, run
from fastapi_autumn.cli._console import confirm, fields, moment, note, show
from fastapi_autumn.cli._conventions import OutputFormat, Yes
from fastapi_autumn.errors import AutumnError, ConfigurationError
from fastapi_autumn.settlement import Entry
from fastapi_autumn.settlement.outbox import Outbox, State

__all__ = ["open_outbox", "refunds"]

_T = TypeVar("_T")
_SECONDS_TO_CLOSE = 5.0
_MOST = 100_000

ChargeId = Annotated[
    str, typer.Argument(metavar="CHARGE", help="The id of the charge, as autumn refunds list shows it.")
]


def list_rows(
    state: Annotated[
        State | None,
        typer.Option(help="Only these: under way, due to be sent, or parked for a person.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="How many.")] = 100,
    output_format: OutputFormat = "table",
) -> None:
    """List what waits, oldest first.

    Examples:
        autumn refunds list
        autumn refunds list --state parked --format json
    """

    async def read(outbox: Outbox | None) -> Sequence[tuple[State, Entry]]:
        return [] if outbox is None else await outbox.list(state, limit=limit)

    found = [_document(state, entry) for state, entry in _with_outbox(read)]
    columns = [
        "charge_id",
        "state",
        "customer_id",
        "feature_id",
        "action",
        "value",
        "created",
        "attempts",
        "last_error",
    ]
    show(
        output_format,
        columns,
        [[one[name] for name in columns] for one in found],
        document={"list": found},
        empty="Nothing waits.",
    )


def show_row(charge_id: ChargeId, output_format: OutputFormat = "table") -> None:
    """Show one charge.

    Examples:
        autumn refunds show 3f1c9a2b7d604e58-12
    """
    _, state, entry = _with_outbox(lambda outbox: _find(outbox, charge_id))
    found = _document(state, entry)
    if output_format == "table":
        fields(found)
    else:
        show(output_format, list(found), [list(found.values())], document=found)


def retry(charge_id: ChargeId, yes: Yes = False) -> None:
    """Send a parked charge again; the running service does it, or the next one that starts.

    Examples:
        autumn refunds retry 3f1c9a2b7d604e58-12
    """

    async def again(maybe: Outbox | None) -> None:
        outbox, state, entry = await _find(maybe, charge_id)
        if state != "parked":
            raise AutumnError(f"{charge_id} is {state} and will be sent by itself; only parked charges need a retry.")
        if entry.is_beyond_certainty(outbox.now()):
            note(
                f"It may have been done at {moment(entry.maybe_sent_at)}, and Autumn no longer knows its key. Autumn's "
                f"event log is asked first, and {entry.value} is recorded only if it is not there; see for yourself "
                f"with autumn events --customer {entry.customer_id}."
            )
            confirm("Send it again?", yes=yes)
        await outbox.retry(charge_id)

    _with_outbox(again)
    print(f"{charge_id} is due: the running service sends it, or the next one that starts.")


def drop(charge_id: ChargeId, yes: Yes = False) -> None:
    """Forget a charge without telling Autumn.

    Examples:
        autumn refunds drop 3f1c9a2b7d604e58-12
    """

    async def forget(maybe: Outbox | None) -> None:
        outbox, _, entry = await _find(maybe, charge_id)
        confirm(
            f"Forget {charge_id} ({entry.action.value} {entry.value} for {entry.customer_id}) without telling Autumn?",
            yes=yes,
        )
        await outbox.drop(charge_id)

    _with_outbox(forget)
    print(f"{charge_id} is forgotten.")


refunds = {"list": list_rows, "show": show_row, "retry": retry, "drop": drop}


@asynccontextmanager
async def open_outbox(url: str) -> AsyncIterator[Outbox | None]:
    """The outbox at `url`, or None where its file does not exist yet.

    Raises:
        ConfigurationError: it cannot be opened.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "AUTUMN_OUTBOX_URL is no database address; write sqlite+aiosqlite:///.autumn/outbox.db or "
            "postgresql+asyncpg://user:password@host/name."
        ) from None
    if not _is_there(parsed):
        yield None
        return
    outbox = Outbox(url)
    try:
        try:
            await outbox.start()
        except ImportError as error:
            raise ConfigurationError(
                f"AUTUMN_OUTBOX_URL needs the package {error.name}; for PostgreSQL: "
                "pip install 'fastapi-autumn[postgres]'."
            ) from error
        yield outbox
    finally:
        await outbox.stop(within=_SECONDS_TO_CLOSE)


def _is_there(url: URL) -> bool:
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def _with_outbox(work: Callable[[Outbox | None], Awaitable[_T]]) -> _T:
    url = CommandSettings.load().outbox_url

    async def do() -> _T:
        try:
            async with open_outbox(url) as outbox:
                return await work(outbox)
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise ConfigurationError(f"The outbox cannot be used ({cause}); check AUTUMN_OUTBOX_URL.") from error

    return run(do())


async def _find(outbox: Outbox | None, charge_id: str) -> tuple[Outbox, State, Entry]:
    rows = [] if outbox is None else await outbox.list(limit=_MOST)
    for state, entry in rows:
        if outbox is not None and entry.charge_id == charge_id:
            return outbox, state, entry
    raise AutumnError(f"The outbox has no charge {charge_id!r}; see what waits with autumn refunds list.")


def _document(state: State, entry: Entry) -> dict[str, Any]:
    return {
        "charge_id": entry.charge_id,
        "state": state,
        "customer_id": entry.customer_id,
        "feature_id": entry.feature_id,
        "entity_id": entry.entity_id,
        "credits": str(entry.credits),
        "action": entry.action.value,
        "value": str(entry.value),
        "reason": entry.reason,
        "created": moment(entry.created_at),
        "due": moment(entry.due_at),
        "maybe_sent": moment(entry.maybe_sent_at),
        "attempts": entry.attempts,
        "last_error": entry.last_error,
    }
