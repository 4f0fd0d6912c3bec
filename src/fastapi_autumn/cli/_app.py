"""Which commands there are, and what the process ends with.

The table below is all that `--help` needs. The module of a command is imported when the command runs, so each of them
imports what it likes at its top.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from textwrap import dedent, indent
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from fastapi_autumn._version import __version__
from fastapi_autumn.cli._conventions import FAILED
from fastapi_autumn.errors import AutumnError

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("init", "Write an autumn_config.py to start from."),
    "preview": ("preview", "Show what each plan gives and costs. Needs no key and no network."),
    "diff": ("push", "Show what a push would change."),
    "push": ("push", "Make Autumn's catalog the one of the file: shows the difference, then asks."),
    "pull": ("pull", "Write Autumn's catalog into the file, keeping its comments and names."),
    "models": ("models", "Check the price list against the catalog, and suggest prices."),
    "customers": ("lists", "List customers, or show one."),
    "plans": ("lists", "List plans, or show one."),
    "features": ("lists", "List features, or show one."),
    "events": ("lists", "List usage events, newest first."),
    "check": ("usage", "Ask whether a customer may use a feature."),
    "track": ("usage", "Record usage by hand; a negative value gives it back."),
    "grant": ("purchases", "Give a customer credits, once for each reason."),
    "attach": ("purchases", "Put a customer on a plan: shows what it costs, then asks."),
    "cancel": ("purchases", "End a customer's plan with its cycle, or at once."),
    "refunds": ("refunds", "Look after what the outbox still has to tell Autumn."),
    "emulator": ("emulator", "Run an Autumn on this machine, with no key and no money."),
    "login": ("account", "Sign in with the browser and write the keys to .env."),
    "logout": ("account", "Take the keys out of .env."),
    "env": ("account", "Show which organisation and environment the key belongs to."),
    "doctor": ("doctor", "Check the set-up: settings, key, connection, clock, catalog, outbox."),
}
"""By name: the module, and the line in `--help`, which is the first line of the command's docstring."""

_PLAIN: Mapping[str, Any] = {
    "rich_markup_mode": None,  # loading rich would take longer than all the rest of --help
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "no_args_is_help": True,
}


class _Commands(TyperGroup):
    """The commands of `COMMANDS`, loaded one by one when they are needed."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is typer's
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS)
            ctx.fail(f"There is no command {args[0]!r}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # Newer versions of typer validate with pydantic, and print what pydantic puts before a message.
            error.message = error.message.removeprefix("Value error, ")
            raise

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as above
        if cmd_name not in COMMANDS:
            return None
        return _load(cmd_name, getattr(import_module(f"fastapi_autumn.cli.{COMMANDS[cmd_name][0]}"), cmd_name))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    **{**_PLAIN, "add_completion": True},
    cls=_Commands,
    epilog=(
        "\b\nExit codes:\n  0  done\n  1  failed; stderr says why and what to do\n  2  wrong usage\n"
        "  3  the answer is no: catalogs differ, a check is refused, a question was\n     not answered with yes"
    ),
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Charge credits for AI calls with Autumn: plans as code, lists, refunds, and an Autumn to run locally."""


def run() -> None:
    """Run what `sys.argv` asks for. Every error ends here, as one sentence and the next step on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # A name in a customer list must not fail on a terminal that cannot show it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="autumn")
    except (AutumnError, OSError) as error:
        from fastapi_autumn.cli._console import sentence  # noqa: PLC0415 - not needed by --help

        print(f"Error: {sentence(error)}", file=sys.stderr)
        sys.exit(FAILED)


def _load(name: str, target: Callable[..., None] | Mapping[str, Callable[..., None]]) -> Any:
    """Make the command of a function, or the group of a mapping of functions."""
    if not isinstance(target, Mapping):
        loaded = typer.Typer(**_PLAIN)
        _add(loaded, name, target)
    else:
        loaded = typer.Typer(**_PLAIN, name=name, help=COMMANDS[name][1])
        loaded.callback()(lambda: None)
        for sub_name, function in target.items():
            _add(loaded, sub_name, function)
    return get_command(loaded)


def _add(to: typer.Typer, name: str, function: Callable[..., None]) -> None:
    text, _, examples = (inspect.getdoc(function) or "").partition("\n\nExamples:\n")
    epilog = f"\b\nExamples:\n{indent(dedent(examples), '  ')}" if examples else None
    # Without short_help, the list of a group's commands would cut the line short.
    to.command(name, help=text, short_help=text.partition("\n")[0], epilog=epilog)(function)
