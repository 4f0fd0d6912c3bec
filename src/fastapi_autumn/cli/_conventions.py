"""What the commands have in common: exit codes, and options that several of them take."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["FAILED", "NO", "CatalogFile", "Format", "OutputFormat", "Prod", "Yes", "amount_option"]

FAILED = 1
"""Exit code: it could not be done. 2 is typer's, for wrong usage."""
NO = 3
"""Exit code: it was done, and the answer is no, such as catalogs that differ or a check that is refused."""

Format = Literal["table", "json", "csv"]

CatalogFile = Annotated[Path, typer.Option("--config", "-c", help="The catalog file.")]
OutputFormat = Annotated[Format, typer.Option("--format", "-f", help="How to print it.")]
Prod = Annotated[
    bool,
    typer.Option("--prod", "-p", help="Use production, with the key in AUTUMN_PROD_SECRET_KEY.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)]


def amount_option(text: str) -> Decimal:
    """Read an option that is an amount, without the detour through a float."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is no amount; write a number such as 3 or 0.5") from None
