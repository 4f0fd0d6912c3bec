"""`autumn pull`: bring the file in step with Autumn's catalog."""

from pathlib import Path
from typing import Annotated

import typer

from fastapi_autumn.catalog import Catalog, diff, render, render_types, render_typescript, update_source
from fastapi_autumn.cli._backend import connect, run, settings_for
from fastapi_autumn.cli._catalog import is_of_atmn_2, read_remote
from fastapi_autumn.cli._console import confirm, progress
from fastapi_autumn.cli._conventions import CatalogFile, Prod, Yes
from fastapi_autumn.errors import CatalogError

__all__ = ["pull"]

_MARK = "Written by `autumn pull`"
"""What `render_types` says of itself; a file without it is somebody else's."""


def pull(
    *,
    config: CatalogFile = Path("autumn_config.py"),
    force: Annotated[
        bool, typer.Option("--force", help="Write the files anew: comments and names are lost.", show_default=False)
    ] = False,
    typescript: Annotated[
        bool, typer.Option("--ts", help="Write an autumn.config.ts instead, for atmn 1.", show_default=False)
    ] = False,
    yes: Yes = False,
    prod: Prod = False,
) -> None:
    """Write Autumn's catalog into the file, keeping its comments and names.

    Beside it, autumn_types.py gets the ids of features and plans as types. Where Autumn has no catalog at all, it asks
    before it empties the file.

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
        _write_typescript(config.with_name("autumn.config.ts"), catalog)
        return
    types = config.with_name("autumn_types.py")
    if types.exists() and not force and _MARK not in _read(types):
        raise CatalogError(f"{types} was not written by autumn pull; move it, or have it replaced with --force.")
    if config.exists() and not force:
        before = _read(config)
        if not catalog.ids() and Catalog.from_source(before, config).ids():
            confirm(f"Autumn's catalog is empty. Take everything out of {config}?", yes=yes)
        changes = diff(catalog, Catalog.from_source(before, config))
        _write(config, update_source(before, catalog, config) if changes else before)
        for change in changes:
            print(f"  {change.action} {change.kind} {change.id}")
    else:
        _write(config, render(catalog))
    _write(types, render_types(catalog))


def _write_typescript(path: Path, catalog: Catalog) -> None:
    if path.exists() and is_of_atmn_2(_read(path)):
        raise CatalogError(
            f"{path} has the form of atmn 2, and this command writes the one of atmn 1, which atmn 2 refuses. Pull it "
            "with atmn 2, or move the file away to have the older form."
        )
    _write(path, render_typescript(catalog))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    """Write `text` and say so; a file that has it already is left alone, so that build tools see no change."""
    crlf = False
    if path.exists():
        with path.open(encoding="utf-8") as file:
            if file.read() == text:
                print(f"{path} is in step.")
                return
            crlf = "\r\n" in (file.newlines or ())
    path.write_text(text, encoding="utf-8", newline="\r\n" if crlf else "\n")
    print(f"Wrote {path}.")
