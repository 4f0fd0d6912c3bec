"""`autumn emulator`: an Autumn on this machine."""

import ipaddress
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from fastapi_autumn.autumn import default_catalog
from fastapi_autumn.cli._backend import CommandSettings
from fastapi_autumn.cli._catalog import load_valid
from fastapi_autumn.cli._console import confirm, moment, note
from fastapi_autumn.cli._conventions import CatalogFile, Yes
from fastapi_autumn.cli._emulator import open_emulator
from fastapi_autumn.emulator import EMULATOR_KEY, ApiError
from fastapi_autumn.errors import CatalogError, ConfigurationError

__all__ = ["emulator"]

_CENTURY = 36_525.0
"""Days; Python's calendar ends with the year 9999."""

EmulatorFile = Annotated[
    Path | None, typer.Option("--path", help="The emulator's file.", show_default="AUTUMN_EMULATOR_PATH")
]


def serve(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8792,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen where other machines can reach it.", show_default=False)
    ] = False,
    path: EmulatorFile = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The catalog file for an emulator that has no catalog yet.")
    ] = None,
) -> None:
    """Serve the emulator over HTTP until Ctrl-C.

    A new emulator starts with autumn_config.py, or else with an example: 50 credits a month, a paid plan and a top-up.
    Anybody who reaches it has all its rights, so it listens on this machine only, unless --allow-remote is given.

    Examples:
        autumn emulator serve
        autumn emulator serve --port 9000 --config autumn_config.py
    """
    if not _is_loopback(host) and not allow_remote:
        raise ConfigurationError(
            f"{host} can be reached from other machines, and the emulator trusts everybody; "
            "leave out --host, or add --allow-remote if that is meant."
        )
    catalog = default_catalog() if config is None else load_valid(config)
    file = _file(path)
    is_new = not file.exists()
    with closing(open_emulator(file, catalog=catalog)) as app:
        if allow_remote:
            app.hosts = None
        listening = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, date_header=False)
        try:
            bound = listening.bind_socket()
        except SystemExit:  # uvicorn's way to say that the address is taken
            raise ConfigurationError(f"{host}:{port} cannot be listened on; give another one with --port.") from None
        bound.listen()  # who reads the address below may use it at once
        shown = f"[{host}]" if ":" in host else host
        print(f"AUTUMN_BASE_URL=http://{shown}:{bound.getsockname()[1]}")
        print(f"AUTUMN_SECRET_KEY={EMULATOR_KEY}", flush=True)
        if is_new:
            source = config or Path("autumn_config.py")
            example = "an example, because there is no autumn_config.py; autumn init writes one"
            note(f"It is new, and has the plans of {source if source.exists() else example}.")
        note("The emulator serves; set these two where your service runs. Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):  # the way to end it, which uvicorn hands on when it is done
            uvicorn.Server(listening).run(sockets=[bound])


def reset(path: EmulatorFile = None, yes: Yes = False) -> None:
    """Forget all customers, usage and faults, and start again with the catalog it was seeded with.

    Examples:
        autumn emulator reset --yes
    """
    file = _file(path)
    confirm(f"Forget everything in {file}?", yes=yes)
    with closing(open_emulator(file)) as app:
        app.reset()
    print(f"{file} is as new.")


def seed(config: CatalogFile = Path("autumn_config.py"), path: EmulatorFile = None) -> None:
    """Add the features and plans of a catalog file, or change them. Others stay.

    Examples:
        autumn emulator seed
    """
    catalog = load_valid(config)
    file = _file(path)
    with closing(open_emulator(file)) as app:
        try:
            app.seed(catalog)
        except ApiError as error:
            raise CatalogError(f"The emulator refuses {config}: {error.message}") from error
    print(f"{file} has {len(catalog.features)} features and {len(catalog.plans)} plans of {config}.")


def clock(
    days: Annotated[float, typer.Option(min=0, max=_CENTURY)] = 0,
    hours: Annotated[float, typer.Option(min=0, max=_CENTURY * 24)] = 0,
    minutes: Annotated[float, typer.Option(min=0, max=_CENTURY * 24 * 60)] = 0,
    path: EmulatorFile = None,
) -> None:
    """Show the emulator's time, or move it forward: balances reset, trials and holds end.

    Examples:
        autumn emulator clock
        autumn emulator clock --days 31
    """
    with closing(open_emulator(_file(path))) as app:
        app.clock.advance(days=days, hours=hours, minutes=minutes)
        print(moment(app.clock.now()))


emulator = {"serve": serve, "reset": reset, "seed": seed, "clock": clock}


def _file(path: Path | None) -> Path:
    return CommandSettings.load().emulator_path if path is None else path


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
