"""`autumn events --follow`: events as Autumn shows them."""

import asyncio
import csv
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

from fastapi_autumn.cli._console import printable
from fastapi_autumn.cli._conventions import Format

__all__ = ["follow_events"]

_LATE_MS = 120_000
_PAUSE_SECONDS = 1.0


async def follow_events(
    read_page: Callable[[Mapping[str, Any]], Awaitable[tuple[list[Mapping[str, Any]], str | None]]],
    body: Mapping[str, Any],
    columns: Mapping[str, Callable[[Mapping[str, Any]], Any]],
    output_format: Format,
) -> NoReturn:
    """Print events as they come, for ever.

    Autumn's log is filled out of order and up to a minute late, so each look goes back two minutes behind the newest.
    """
    seen: dict[str, int] = {}
    start, newest, oldest = body["custom_range"]["start"], 0, 0
    _print_event(list(columns), output_format, names=True)
    while True:
        found, cursor = await read_page({**body, "custom_range": {"start": start}})
        while newest and cursor:  # the first look shows one page, the others miss nothing
            asked = {**body, "custom_range": {"start": start}, "start_cursor": cursor}
            more, cursor = await read_page(asked)
            found += more
        for event in reversed(found):
            if event["id"] not in seen and event["timestamp"] >= oldest:
                document = event if output_format == "json" else None
                _print_event([read(event) for read in columns.values()], output_format, document=document)
            seen[event["id"]] = event["timestamp"]
        oldest = oldest or min(seen.values(), default=0)  # what the first page left out stays out
        newest = max([newest, *seen.values()])
        start = max(start, newest - _LATE_MS)
        seen = {event_id: when for event_id, when in seen.items() if when >= start}
        await asyncio.sleep(_PAUSE_SECONDS)


def _print_event(
    cells: Sequence[Any], output_format: Format, *, names: bool = False, document: Mapping[str, Any] | None = None
) -> None:
    if output_format == "json":
        if document is not None:
            print(json.dumps(document, ensure_ascii=False), flush=True)
    elif output_format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerow(cells)
        sys.stdout.flush()
    elif not names:
        # Nobody knows the widths of what is still to come, so each line is read by itself.
        print("  ".join(printable(cell) for cell in cells[:-1] if cell not in {None, ""}), flush=True)
