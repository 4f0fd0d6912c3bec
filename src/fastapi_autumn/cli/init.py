"""`autumn init`: a catalog file to start from."""

from pathlib import Path
from typing import Annotated

import typer

from fastapi_autumn.catalog.templates import TEMPLATES, Template
from fastapi_autumn.cli._console import note
from fastapi_autumn.errors import ConfigurationError

__all__ = ["init"]


def init(
    template: Annotated[
        Template,
        typer.Argument(
            help="What to start from: credits for an AI product, seats for teams, billing by usage, or flags that "
            "switch parts on."
        ),
    ] = "credits",
    config: Annotated[Path, typer.Option("--config", "-c", help="The file to write.")] = Path("autumn_config.py"),
) -> None:
    """Write an autumn_config.py to start from.

    A file that is there already stays as it is.

    Examples:
        autumn init
        autumn init seats
    """
    try:
        with config.open("x", encoding="utf-8") as file:
            file.write(TEMPLATES[template])
    except FileExistsError:
        raise ConfigurationError(
            f"{config} is there already and stays as it is; give another file with --config, or remove it first."
        ) from None
    print(f"Wrote {config} from the template {template}.")
    note("See what it gives with autumn preview, then bring it to Autumn with autumn push.")
