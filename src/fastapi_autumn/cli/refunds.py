"""`autumn refunds`: what the outbox still has to tell Autumn, for people to look at and decide."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fastapi_autumn._machine import MACHINE
from fastapi_autumn.cli._backend import CommandSettings, run
from fastapi_autumn.cli._console import confirm, fields, moment, show
from fastapi_autumn.cli._conventions import OutputFormat, Yes
from fastapi_autumn.errors import AutumnError, ConfigurationError
from fastapi_autumn.settlement.sql import SqlStore, read_url
from fastapi_autumn.settlement.store import Row, State

__all__ = ["open_store", "refunds"]

_T = TypeVar("_T")
_MOST = 100_000

ChargeId = Annotated[
    str, typer.Argument(metavar="CHARGE", help="The id of the charge, as autumn refunds list shows it.")
]


def list_rows(
    state: Annotated[
        State | None,
        typer.Option(help="Only these: under way, due to be sent, or short of something.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=_MOST, help="How many.")] = 100,
    output_format: OutputFormat = "table",
) -> None:
    """List what waits, oldest first, of every account in the database.

    Examples:
        autumn refunds list
        autumn refunds list --state shortfall --format json
    """

    async def read(store: SqlStore | None) -> Sequence[Row]:
        return [] if store is None else await store.list(state, limit=limit, everybody=True)

    found = [_document(row) for row in _with_store(read)]
    columns = [
        "charge_id",
        "account",
        "state",
        "customer_id",
        "feature_id",
        "taken",
        "cost",
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
    _, row = _with_store(lambda store: _find(store, charge_id))
    found = _document(row)
    if output_format == "table":
        fields(found)
    else:
        show(output_format, list(found), [list(found.values())], document=found)


def retry(charge_id: ChargeId) -> None:
    """Try a charge with a shortfall again; the running service does it, or the next one that starts.

    Autumn's event log is asked first, so nothing is done twice.

    Examples:
        autumn refunds retry 3f1c9a2b7d604e58-12
    """

    async def again(maybe: SqlStore | None) -> None:
        store, row = await _find(maybe, charge_id)
        if row.state != "shortfall":
            raise AutumnError(
                f"{charge_id} is {row.state} and is settled by itself; only charges with a shortfall need a retry."
            )
        await store.retry(charge_id, now=MACHINE.wall_ms())

    _with_store(again)
    print(f"{charge_id} is due: the running service sees to it, or the next one that starts.")


def drop(charge_id: ChargeId, yes: Yes = False) -> None:
    """Forget a charge without telling Autumn.

    Examples:
        autumn refunds drop 3f1c9a2b7d604e58-12
    """

    async def forget(maybe: SqlStore | None) -> None:
        store, row = await _find(maybe, charge_id)
        entry = row.entry
        confirm(
            f"Forget {charge_id} ({entry.taken} taken, {entry.cost} to be paid, by {entry.customer_id}) without "
            "telling Autumn?",
            yes=yes,
        )
        await store.drop(charge_id)

    _with_store(forget)
    print(f"{charge_id} is forgotten.")


refunds = {"list": list_rows, "show": show_row, "retry": retry, "drop": drop}


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[SqlStore | None]:
    """The store at `url`, or None where its file does not exist yet.

    Raises:
        ConfigurationError: it cannot be opened.
    """
    if not _is_there(read_url(url)):
        yield None
        return
    store = SqlStore(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _is_there(url: URL) -> bool:
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()


def _with_store(work: Callable[[SqlStore | None], Awaitable[_T]]) -> _T:
    url = CommandSettings.load().outbox_url

    async def do() -> _T:
        try:
            async with open_store(url) as store:
                return await work(store)
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise ConfigurationError(f"The outbox cannot be used ({cause}); check AUTUMN_OUTBOX_URL.") from error

    return run(do())


async def _find(store: SqlStore | None, charge_id: str) -> tuple[SqlStore, Row]:
    rows = [] if store is None else await store.list(limit=_MOST, everybody=True)
    for row in rows:
        if store is not None and row.entry.charge_id == charge_id:
            return store, row
    raise AutumnError(f"The outbox has no charge {charge_id!r}; see what waits with autumn refunds list.")


def _document(row: Row) -> dict[str, Any]:
    entry, account = row.entry, row.account
    return {
        "charge_id": entry.charge_id,
        "account": f"{account.organisation or account.key_digest} ({account.environment})",
        "origin": account.origin,
        "state": row.state,
        "customer_id": entry.customer_id,
        "feature_id": entry.feature_id,
        "entity_id": entry.entity_id,
        "charging": entry.charging,
        "credits": str(entry.credits),
        "taken": None if entry.taken is None else str(entry.taken),
        "cost": str(entry.cost),
        "reason": entry.reason,
        "created": moment(entry.created_at),
        "due": moment(entry.due_at),
        "doubt": entry.doubt.value,
        "attempts": entry.attempts,
        "last_error": entry.last_error,
    }
