"""The tables of the outbox's database, and how entries become rows."""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from fastapi_autumn.settlement.entry import Doubt, Entry

__all__ = [
    "ENTRY_COLUMNS",
    "accounts",
    "charges",
    "charges_table",
    "details",
    "entry_of",
    "messages",
    "metadata",
    "replies",
    "row_of",
    "schema",
    "workers",
]

metadata = sa.MetaData()


def charges_table(metadata: sa.MetaData, *added: sa.Column[Any]) -> sa.Table:
    """Return the table of charges as it was at first, with the columns that migrations have added since."""
    # Ids and amounts are texts without a limit: a row that does not fit would hold up all that are committed with it.
    return sa.Table(
        "autumn_charges",
        metadata,
        sa.Column("charge_id", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("feature_id", sa.Text, nullable=False),
        sa.Column("entity_id", sa.Text),
        sa.Column("charging", sa.Text, nullable=False),
        sa.Column("credits", sa.Text, nullable=False),
        sa.Column("cost", sa.Text, nullable=False),
        sa.Column("taken", sa.Text),
        sa.Column("required", sa.Text),
        sa.Column("held", sa.Boolean, nullable=False),
        # Nothing reads it any more.
        sa.Column("unmoved", sa.Text, nullable=False, default="0"),
        sa.Column("loose_feature", sa.Text),
        sa.Column("loose_id", sa.Text),
        sa.Column("loose_until", sa.BigInteger),
        sa.Column("to_grant", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("key_number", sa.Integer, nullable=False),
        sa.Column("doubt", sa.Text, nullable=False),
        sa.Column("contested", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("last_error", sa.Text),
        *added,
        sa.Index("autumn_charges_due", "state", "due_at"),
        sa.Index("autumn_charges_owner", "owner"),
    )


details = sa.Column("details", sa.Text)
charges = charges_table(metadata, details)

workers = sa.Table(
    "autumn_charge_workers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("complete_to", sa.BigInteger, nullable=False),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
)

accounts = sa.Table(
    "autumn_accounts",
    metadata,
    sa.Column("key_digest", sa.Text, primary_key=True),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("organisation", sa.Text),
)

replies = sa.Table(
    "autumn_replies",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("standing", sa.Text, nullable=False),
    sa.Column("attempt_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("charges", sa.Text, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("autumn_replies_expiry", "expires_at"),
)

messages = sa.Table(
    "autumn_messages",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("standing", sa.Text, nullable=False),
    sa.Column("attempt_id", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("signed_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("autumn_messages_expiry", "expires_at"),
)

schema = sa.Table(
    "autumn_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("oldest_code", sa.Integer, nullable=False),
)

_NO_TEXTS = {column.name for column in charges.columns if not isinstance(column.type, sa.Text)}
_OF_THE_STORE = {"account", "state", "owner", "lease_until", "unmoved"}
ENTRY_COLUMNS = [column for column in charges.columns if column.name not in _OF_THE_STORE]
_AMOUNTS = ("credits", "cost", "taken", "required", "to_grant")


def entry_of(row: sa.Row[Any]) -> Entry:
    """Read an entry: its fields have the names of the columns."""
    values = {column.name: getattr(row, column.name) for column in ENTRY_COLUMNS}
    amounts = {name: None if values[name] is None else Decimal(values[name]) for name in _AMOUNTS}
    return Entry(**values | amounts | {"doubt": Doubt(values["doubt"])})


def row_of(entry: Entry) -> dict[str, Any]:
    """Write an entry as the columns that have the names of its fields."""
    values = {column.name: getattr(entry, column.name) for column in ENTRY_COLUMNS}
    amounts = {name: None if values[name] is None else str(values[name]) for name in _AMOUNTS}
    written = values | amounts | {"doubt": entry.doubt.value}
    return {name: value if value is None or name in _NO_TEXTS else _storable(value) for name, value in written.items()}


def _storable(value: Any) -> str:
    """What comes from applications and servers may hold what no database takes: NUL, half a surrogate pair.

    Autumn takes neither in an id, so a row whose id is changed by this has nothing to give back.
    """
    # A reason that is an exception, an id that is a number: a driver refuses what is no text, and that for ever.
    return str(value).replace("\0", "\ufffd").encode(errors="replace").decode()
