"""How charges are closed: the decisions (pure), and the outbox, which tells Autumn about them.

`Outbox` and `Sender` live in `fastapi_autumn.settlement.outbox` and `.sender`: they bring SQLAlchemy, which a service
should load when it starts and not when it is imported.
"""

from fastapi_autumn.settlement._entry import Entry
from fastapi_autumn.settlement._outcome import (
    Action,
    Instruction,
    Outcome,
    Taken,
    Verdict,
    by_default,
    judge,
    settle,
)

__all__ = ["Action", "Entry", "Instruction", "Outcome", "Taken", "Verdict", "by_default", "judge", "settle"]
