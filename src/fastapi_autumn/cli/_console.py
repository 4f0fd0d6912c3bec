"""What a command prints. Results go to stdout; notes, questions and progress to stderr."""

import csv
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import typer

from fastapi_autumn.cli._conventions import NO, Format
from fastapi_autumn.errors import (
    AutumnError,
    ConnectFailed,
    CustomerNotFound,
    RequestRejected,
    ServerFailure,
    Unavailable,
    Uncertain,
    UnexpectedAnswer,
)

__all__ = [
    "can_ask",
    "choose",
    "confirm",
    "fields",
    "moment",
    "note",
    "printable",
    "progress",
    "sentence",
    "show",
    "table",
]

_C = TypeVar("_C", bound=str)
_UNAUTHORIZED = 401
_WIDTH_OF_A_FILE = 10_000

_NEXT_STEPS: Mapping[type[AutumnError], str] = {
    ConnectFailed: "Check AUTUMN_BASE_URL and the network, or run autumn doctor.",
    CustomerNotFound: "See which there are with autumn customers.",
    ServerFailure: "Try again in a moment.",
    UnexpectedAnswer: "Check that AUTUMN_BASE_URL is Autumn's.",
    Uncertain: "It may have been done all the same: look before you try again.",
    Unavailable: "Nothing was done; try again in a moment.",
}
"""For errors whose message does not say it; the special ones before the general."""


def sentence(error: AutumnError | OSError) -> str:
    """What went wrong, and what to do next."""
    text = "\n".join(map(printable, str(error).splitlines()))
    return f"{text.rstrip('.')}. {step}" if (step := _next_step(error)) else text


def _next_step(error: AutumnError | OSError) -> str:
    if isinstance(error, OSError):
        return "Check the file and its permissions." if error.filename else ""
    if isinstance(error, RequestRejected) and error.status == _UNAUTHORIZED:
        return "Check the key with autumn env, or run autumn login for a new one."
    return next((step for kind, step in _NEXT_STEPS.items() if isinstance(error, kind)), "")


def show(
    output_format: Format, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, document: Any, empty: str = ""
) -> None:
    """Print `rows` as a table or as CSV, or `document` as JSON. `empty` is the note for a table without rows."""
    if output_format == "json":
        print(json.dumps(document, indent=2, ensure_ascii=False, default=str))
    elif output_format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    elif rows:
        table(columns, rows)
    else:
        note(empty)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table. Where stdout is no terminal it has no colours, and no line is folded."""
    from rich import box  # noqa: PLC0415 - JSON and CSV do without
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_lines(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    # rich alone would still send bold under NO_COLOR, which is for people who want no escape sequences at all.
    Console(width=width, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto").print(drawn)


def note(text: str) -> None:
    """Say something that is not the result."""
    print(text, file=sys.stderr)


def can_ask() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the answer is yes; `yes` answers it. Without a terminal to ask on, the answer is no.

    Raises:
        typer.Exit: with the code `NO`.
    """
    with _interruptible():
        if yes or (can_ask() and typer.confirm(question, err=True)):
            return
    note("Nothing was done." if can_ask() else f"{question} There is no terminal to ask on; add --yes to do it.")
    raise typer.Exit(NO)


def choose(question: str, choices: Sequence[_C]) -> _C:
    """Ask until the answer is the number of one of `choices`."""
    note(question)
    for number, choice in enumerate(choices, start=1):
        note(f"  {number}  {choice}")
    while True:
        with _interruptible():
            answer = typer.prompt("Number", err=True)
        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            return choices[int(answer) - 1]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question at once: asyncio only notes it until the next await, and the question would wait."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that something takes a while, on a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal

    with Console(stderr=True).status(text):
        yield


def moment(milliseconds: Any) -> str:
    """A point in time, from milliseconds since 1970; empty for none."""
    if not isinstance(milliseconds, int | float):
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError):  # further away than the calendar goes
        return str(milliseconds)


def printable(value: Any) -> str:
    """`value` as text that cannot move a terminal's cursor or change its colours: names come from customers."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _lines(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else ""
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        return "\n".join(map(printable, cell))
    return printable(cell)


def fields(document: Mapping[str, Any]) -> None:
    """Print one thing, a line for each of its fields that says something; a list has a line for each entry."""
    width = max(map(len, document), default=0) + 1
    for name, value in document.items():
        first, *others = (_lines(value) or "").splitlines() or [""]
        if first:
            print(f"{name + ':':{width}} {first}")
        for line in others:
            print(" " * width, line)
