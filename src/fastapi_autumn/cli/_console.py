"""What a command prints. Results go to stdout; notes, questions and progress to stderr."""

import csv
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_A = TypeVar("_A")
_C = TypeVar("_C", bound=str)
_UNAUTHORIZED = 401
_WIDTH_OF_A_FILE = 10_000
_BETWEEN_COLUMNS = 3
_LONG_WORD = 12
"""A longer one may be folded."""

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

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    # rich alone would still send bold under NO_COLOR, which is for people who want no escape sequences at all.
    console = Console(width=width, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    texts = [[_lines(cell) for cell in row] for row in rows]
    fit = _how_many_fit(columns, texts, console.width)
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns[:fit]:
        drawn.add_column(column, overflow="fold", no_wrap=_is_whole(column))
    for row in texts:
        drawn.add_row(*map(Text, row[:fit]))
    console.print(drawn)
    if fit < len(columns):
        note(f"This terminal is too narrow for {', '.join(columns[fit:])}; --format json shows everything.")


def _is_whole(column: str) -> bool:
    """Tell whether a column must not be broken: nobody can copy an id that stands on two lines."""
    return column in {"id", "time"} or column.endswith("_id")


def _how_many_fit(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """Return how many of the columns, from the left, can be read in `width`; at least one."""
    taken = -_BETWEEN_COLUMNS
    for number, column in enumerate(columns):
        lines = [line for row in rows for line in row[number].splitlines()]
        words = [max(map(len, line.split()), default=0) for line in lines]
        needed = max(map(len, lines), default=0) if _is_whole(column) else min(max(words, default=0), _LONG_WORD)
        taken += max(len(column), needed) + _BETWEEN_COLUMNS
        if taken > width:
            return max(1, number)
    return len(columns)


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
    if yes or (can_ask() and _asked(lambda: typer.confirm(question, err=True))):
        return
    note("Nothing was done." if can_ask() else f"{question} There is no terminal to ask on; add --yes to do it.")
    raise typer.Exit(NO)


def choose(question: str, choices: Mapping[_C, str]) -> _C:
    """Ask until the answer is the number of one of `choices`, each of which is explained.

    Raises:
        typer.Exit: Ctrl-C, with the code `NO`.
    """
    note(question)
    width = max(map(len, choices))
    for number, (choice, meaning) in enumerate(choices.items(), start=1):
        note(f"  {number}  {choice:{width}}  {meaning}")
    while True:
        answer = _asked(lambda: typer.prompt("Number", err=True))
        if answer is None:
            note("Nothing was done.")
            raise typer.Exit(NO)
        if answer.isdecimal() and 1 <= int(answer) <= len(choices):
            return list(choices)[int(answer) - 1]


def _asked(question: Callable[[], _A]) -> _A | None:
    """Return the answer, or None for Ctrl-C, which is a no.

    Ctrl-C ends a question at once: asyncio would only note it until the next await, and the question would wait.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return question()
    except typer.Abort:
        note("")
        return None
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
