"""What no real Autumn lets anybody try: it is down, it answers late, it forgets to answer, the month is over."""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from fastapi import APIRouter, HTTPException

from fastapi_autumn import Autumn
from fastapi_autumn.emulator import Fault

__all__ = ["Recent", "controls_router"]

Trouble = Literal["none", "down", "late", "drop"]

# One lost answer is enough: what finds out about it calls the same operation.
_FAULTS: dict[Trouble, tuple[str, Fault]] = {
    "down": ("*", Fault(kind="refuse")),
    "late": ("balances.check", Fault(kind="late", delay_ms=2000)),
    "drop": ("balances.check", Fault(kind="drop", times=1)),
}
_SHOWN = 8


class Recent(logging.Handler):
    """Keeps the last messages of `fastapi_autumn`, so that the page can show what the service does."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: deque[dict[str, Any]] = deque(maxlen=_SHOWN)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message. Warnings reach the terminal as well, as they would without this handler."""
        self.messages.append(
            {"at": int(record.created * 1000), "level": record.levelname.lower(), "text": record.getMessage()}
        )
        if record.levelno >= logging.WARNING and not logging.getLogger().handlers and logging.lastResort:
            logging.lastResort.handle(record)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen while inside."""
        log = logging.getLogger("fastapi_autumn")
        before = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self)
        try:
            yield
        finally:
            log.removeHandler(self)
            log.setLevel(before)


def controls_router(autumn: Autumn, recent: Recent) -> APIRouter:
    """Make the routes, which work with an emulator only."""
    router = APIRouter(prefix="/demo", tags=["controls"])
    chosen: dict[str, Trouble] = {"trouble": "none"}

    def require_emulator() -> None:
        if not autumn.settings.emulator:
            raise HTTPException(409, "This demo runs on a real Autumn, which nobody can switch off.")

    @router.get("/state")
    async def show_state() -> dict[str, Any]:
        """What the service has to do with Autumn just now."""
        waiting = await autumn.outbox.store.count()
        return {
            "trouble": chosen["trouble"],
            "now": autumn.emulator.clock.now() if autumn.settings.emulator else None,
            "waiting": waiting.get("due", 0),
            "shortfalls": waiting.get("shortfall", 0),
            "log": list(recent.messages),
        }

    @router.post("/trouble/{trouble}", status_code=204)
    async def make_trouble(trouble: Trouble) -> None:
        """Have Autumn fail in one way from now on, or work again."""
        require_emulator()
        autumn.emulator.faults.clear()
        if trouble in _FAULTS:
            autumn.emulator.faults.add(*_FAULTS[trouble])
        chosen["trouble"] = trouble

    @router.post("/next-month", status_code=204)
    async def end_the_month() -> None:
        """Move Autumn's clock on by 31 days: plans refill, cancellations take effect."""
        require_emulator()
        autumn.emulator.clock.advance(days=31)

    @router.post("/reset", status_code=204)
    async def start_over() -> None:
        """Forget everybody's plans and usage, and all trouble."""
        require_emulator()
        autumn.emulator.reset()
        chosen["trouble"] = "none"
        recent.messages.clear()

    return router
