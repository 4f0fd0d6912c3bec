"""What Autumn still has to be told about charges: the rule (pure), the outbox, and the loops that work on it.

Read `entry` first: it has the rule by which a charge is settled when an answer is lost. `ledger` names what a charge
leaves in Autumn's event log. `store` is what the outbox needs of a database, `pending` its memory, `outbox` the writer,
`sender` the loop that delivers, `rescue` the one that looks after the dead.

`SqlStore` lives in `fastapi_autumn.settlement.sql`: it brings SQLAlchemy, which a service should load when it starts
and not when it is imported.
"""

from fastapi_autumn.settlement.entry import Charging, Entry
from fastapi_autumn.settlement.outcome import Outcome, Verdict, by_default, is_cheaper_when_gone

__all__ = ["Charging", "Entry", "Outcome", "Verdict", "by_default", "is_cheaper_when_gone"]
