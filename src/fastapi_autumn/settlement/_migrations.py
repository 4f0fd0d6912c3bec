"""The schema's version, and how a database gets there. Forward only.

Old and new workers run side by side during a rolling upgrade, so a migration only adds: columns with a default, tables,
indexes. What an older worker must not touch any more raises `oldest_code`, the oldest version of the code that may
still work on the database.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.settlement._tables import (
    accounts,
    charges,
    charges_table,
    details,
    messages,
    replies,
    schema,
    workers,
)

__all__ = ["MIGRATIONS", "Migration", "migrate"]

_LOCK = 4709115


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from the version before to `version`."""

    version: int
    statements: Callable[[], Sequence[sa.Executable]]
    oldest_code: int = 1


def _create(*tables: sa.Table) -> list[ExecutableDDLElement]:
    made: list[ExecutableDDLElement] = []
    for table in tables:
        made.append(CreateTable(table, if_not_exists=True))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        made.extend(CreateIndex(index, if_not_exists=True) for index in indexes)
    return made


def _add(table: sa.Table, column: sa.Column[Any]) -> sa.Executable:
    return sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {column.type.compile()}")


MIGRATIONS = (
    Migration(1, lambda: _create(charges_table(sa.MetaData()), workers, accounts)),
    Migration(2, lambda: _create(replies)),
    Migration(3, lambda: [_add(charges, details)]),
    Migration(4, lambda: _create(messages)),
)


async def migrate(connection: AsyncConnection, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the database to the newest version, in the connection's transaction. Any number of workers may do so.

    Raises:
        ConfigurationError: Newer code has changed the database in a way that this code does not understand.
    """
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS still fails when two do it at the same time; the lock makes them queue.
        await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    else:
        # Python's driver begins no transaction for what changes the schema, so it would be done in parts.
        await connection.execute(sa.text("BEGIN IMMEDIATE"))
    await connection.execute(CreateTable(schema, if_not_exists=True))
    newest = migrations[-1].version
    found = (await connection.execute(sa.select(schema).order_by(schema.c.version.desc()))).first()
    if found is not None and found.oldest_code > newest:
        raise ConfigurationError(
            f"The outbox's database has version {found.version}, and this version of fastapi-autumn knows {newest}. "
            "Upgrade fastapi-autumn here as well, or point AUTUMN_OUTBOX_URL at another database."
        )
    version = 0 if found is None else found.version
    for migration in migrations:
        if migration.version <= version:
            continue
        for statement in migration.statements():
            await connection.execute(statement)
        row = {"version": migration.version, "oldest_code": migration.oldest_code}
        await connection.execute(schema.insert().values(row))
