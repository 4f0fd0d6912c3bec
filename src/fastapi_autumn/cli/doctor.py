"""`autumn doctor`: is everything set up that a service needs?"""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import typer

from fastapi_autumn.catalog import Catalog
from fastapi_autumn.cli._backend import CommandSettings, connect, document, run, settings_for
from fastapi_autumn.cli._catalog import load
from fastapi_autumn.cli._console import progress, sentence, show
from fastapi_autumn.cli._conventions import FAILED, CatalogFile, OutputFormat, Prod
from fastapi_autumn.cli._dotenv import names_in
from fastapi_autumn.cli._pending import find_pending
from fastapi_autumn.cli.refunds import open_store
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.errors import AutumnError
from fastapi_autumn.pricing import ModelPrices
from fastapi_autumn.transports import Answer

__all__ = ["doctor"]

_SKEW_SECONDS = 60
"""A hold lives for minutes; a clock that is this wrong shortens or lengthens it noticeably."""


@dataclass(frozen=True)
class _Finding:
    subject: str
    result: str
    """`ok`, `problem`, or `skipped` where there is nothing to look at."""
    detail: str


def doctor(
    *, config: CatalogFile = Path("autumn_config.py"), output_format: OutputFormat = "table", prod: Prod = False
) -> None:
    """Check the set-up: settings, key, connection, clock, catalog, outbox.

    Ends with 1 if there is a problem; every problem says what to do.

    Examples:
        autumn doctor
        autumn doctor --prod
    """

    async def examine() -> list[_Finding]:
        return [finding async for finding in _examine(config, prod=prod)]

    with progress("Looking"):
        findings = run(examine())
    columns = ["check", "result", "detail"]
    rows = [[one.subject, one.result, one.detail] for one in findings]
    show(output_format, columns, rows, document={"list": [dict(zip(columns, row, strict=True)) for row in rows]})
    if any(one.result == "problem" for one in findings):
        raise typer.Exit(FAILED)


async def _examine(config: Path, *, prod: bool) -> AsyncIterator[_Finding]:
    try:
        loaded = CommandSettings.load()
    except AutumnError as error:
        yield _problem("settings", error)
        return
    yield _settings()
    yield _prices(loaded)
    try:
        settings = settings_for(prod=prod)
    except AutumnError as error:
        yield _problem("key", error)
    else:
        yield _Finding("key", "ok", _kind_of_key(settings))
        async with connect(settings) as client:
            async for finding in _ask_autumn(client, settings, config):
                yield finding
    yield await _outbox(loaded)


def _settings() -> _Finding:
    """Look for variables that nothing reads: a misspelt one is silently without effect."""
    known = [f"AUTUMN_{name.upper()}" for name in CommandSettings.model_fields]
    given = {name.upper() for name in (*os.environ, *names_in(Path(".env"))) if name.upper().startswith("AUTUMN_")}
    unknown = sorted(given - set(known))
    if not unknown:
        return _Finding("settings", "ok", "every AUTUMN_ variable has a value that can be used")
    near = [(name, get_close_matches(name, known, n=1, cutoff=0.8)) for name in unknown]
    said = "; ".join(f"{name} is no setting" + (f", did you mean {found[0]}?" if found else "") for name, found in near)
    return _Finding("settings", "problem", f"{said}; correct it, or remove it")


def _prices(settings: CommandSettings) -> _Finding:
    if settings.prices is None:
        return _Finding("price list", "skipped", "AUTUMN_PRICES is not set; the service passes its prices itself")
    try:
        return _Finding(
            "price list", "ok", f"{settings.prices} prices {len(ModelPrices.from_toml(settings.prices))} models"
        )
    except AutumnError as error:
        return _problem("price list", error)


def _kind_of_key(settings: CommandSettings) -> str:
    if settings.emulator:
        return f"none is needed: the emulator in {settings.emulator_path}"
    return "production (am_sk_live_...)" if settings.is_live else "sandbox (am_sk_test_...)"


async def _ask_autumn(client: AutumnClient, settings: CommandSettings, config: Path) -> AsyncIterator[_Finding]:
    started = time.monotonic()
    try:
        answer = await client.get("organization/me")
        name = document(answer, "organization/me").get("name")
    except AutumnError as error:
        yield _problem("connection", error)
        return
    took = (time.monotonic() - started) * 1000
    address = "the emulator" if settings.emulator else settings.base_url
    yield _Finding("connection", "ok", f"{name} at {address}, {took:.0f} ms")
    yield _clock(answer)
    yield await _catalog(client, config)


def _clock(answer: Answer) -> _Finding:
    date = answer.headers.get("date")
    if date is None:
        return _Finding("clock", "skipped", "the answer has no date")
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew) <= _SKEW_SECONDS:
        return _Finding("clock", "ok", f"within {_SKEW_SECONDS} s of Autumn's")
    way = "ahead of" if skew > 0 else "behind"
    return _Finding(
        "clock",
        "problem",
        f"this machine is {abs(skew):.0f} s {way} Autumn, so holds end at the wrong time; set its clock",
    )


async def _catalog(client: AutumnClient, config: Path) -> _Finding:
    try:
        local = _local(config)
        if local is None:
            return _Finding("catalog", "skipped", f"there is no {config}; autumn init or autumn pull writes one")
        pending = await find_pending(client, local)
    except AutumnError as error:
        return _problem("catalog", error)
    if pending.changes:
        return _Finding("catalog", "problem", f"{config} and Autumn differ in {len(pending.changes)}; see autumn diff")
    return _Finding("catalog", "ok", f"{config} and Autumn are in step")


def _local(config: Path) -> Catalog | None:
    return load(config) if config.exists() else None


async def _outbox(settings: CommandSettings) -> _Finding:
    try:
        async with open_store(settings.outbox_url) as store:
            counts: dict[Any, int] = {} if store is None else dict(await store.count(everybody=True))
    except AutumnError as error:
        return _problem("outbox", error)
    if counts.get("shortfall"):
        return _Finding("outbox", "problem", f"{counts['shortfall']} wait for a person; see autumn refunds list")
    waiting = counts.get("due", 0)
    return _Finding("outbox", "ok", f"{waiting} wait to be sent" if waiting else "nothing waits")


def _problem(subject: str, error: AutumnError) -> _Finding:
    return _Finding(subject, "problem", sentence(error))
