"""`autumn pull`: bring the file in step with Autumn's catalog."""

from pathlib import Path
from typing import Annotated

import typer

from fastapi_autumn.catalog import Catalog, diff, render, render_types, render_typescript, update_source
from fastapi_autumn.cli._backend import connect, run, settings_for
from fastapi_autumn.cli._catalog import read_remote
from fastapi_autumn.cli._console import progress
from fastapi_autumn.cli._conventions import CatalogFile, Prod

__all__ = ["pull"]


def pull(
    *,
    config: CatalogFile = Path("autumn_config.py"),
    force: Annotated[
        bool, typer.Option("--force", help="Write the file anew: its comments and names are lost.", show_default=False)
    ] = False,
    typescript: Annotated[
        bool, typer.Option("--ts", help="Write an autumn.config.ts instead, for atmn.", show_default=False)
    ] = False,
    prod: Prod = False,
) -> None:
    """Write Autumn's catalog into the file, keeping its comments and names.

    Beside it, autumn_types.py gets the ids of features and plans as types.

    Examples:
        autumn pull
        autumn pull --prod --config catalog/autumn_config.py
        autumn pull --ts
    """
    if force and typescript:
        raise typer.BadParameter("--ts always writes its file anew; leave out --force", param_hint="--force")
    settings = settings_for(prod=prod)

    async def read() -> Catalog:
        async with connect(settings) as client:
            return await read_remote(client)

    with progress("Reading Autumn's catalog"):
        catalog = run(read())
    if typescript:
        _write(config.with_name("autumn.config.ts"), render_typescript(catalog))
        return
    if config.exists() and not force:
        before = config.read_text(encoding="utf-8")
        changes = diff(catalog, Catalog.from_source(before, config))
        _write(config, update_source(before, catalog, config) if changes else before)
        for change in changes:
            print(f"  {change.action} {change.kind} {change.id}")
    else:
        _write(config, render(catalog))
    _write(config.with_name("autumn_types.py"), render_types(catalog))


def _write(path: Path, text: str) -> None:
    """Write `text` and say so; a file that has it already is left alone, so that build tools see no change."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        print(f"{path} is in step.")
        return
    path.write_text(text, encoding="utf-8")
    print(f"Wrote {path}.")
