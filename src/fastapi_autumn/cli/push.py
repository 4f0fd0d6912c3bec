"""`autumn diff` and `autumn push`: bring Autumn's catalog in step with the file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from fastapi_autumn.catalog import Catalog
from fastapi_autumn.catalog import diff as differences
from fastapi_autumn.cli._backend import CommandSettings, connect, run, settings_for
from fastapi_autumn.cli._catalog import load_valid, read_remote
from fastapi_autumn.cli._console import can_ask, choose, confirm, note, progress, show
from fastapi_autumn.cli._conventions import NO, CatalogFile, Format, OutputFormat, Prod, Yes
from fastapi_autumn.cli._pending import MEANING, Decision, Intent, Pending, find_pending, update_body
from fastapi_autumn.client import AutumnClient, Repeat
from fastapi_autumn.errors import AutumnError, CatalogError, ConfigurationError

__all__ = ["diff", "push"]

_COLUMNS = ["change", "what", "detail"]


def diff(
    *, config: CatalogFile = Path("autumn_config.py"), output_format: OutputFormat = "table", prod: Prod = False
) -> None:
    """Show what a push would change.

    Ends with 0 if file and Autumn are in step, and with 3 if they differ.

    Examples:
        autumn diff
        autumn diff --prod --format json
    """
    local = load_valid(config)
    settings = settings_for(prod=prod)

    async def compare() -> Pending:
        async with connect(settings) as client:
            return await find_pending(client, local)

    with progress("Comparing with Autumn"):
        pending = run(compare())
    _show(pending, output_format, where=_place(settings))
    if pending.changes:
        raise typer.Exit(NO)


def push(
    *,
    config: CatalogFile = Path("autumn_config.py"),
    intent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLAN=INTENT",
            help=f"What becomes of the customers of a plan that changes: {', '.join(get_args(Intent))}. "
            "May be repeated; asked for on a terminal.",
        ),
    ] = None,
    yes: Yes = False,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """Make Autumn's catalog the one of the file: shows the difference, then asks.

    What is not in the file is deleted there, or archived where customers have it; it is listed first. Ends with 0 when
    Autumn has the catalog of the file, but for what was skipped, and with 3 when a question was not answered with yes.

    Examples:
        autumn push
        autumn push --yes
        autumn push --yes --intent pro=create_version
        autumn push --yes --format json
        autumn push --prod
    """
    intents = dict(_read_intent(text) for text in intent or ())
    local = load_valid(config)
    bases = {one.id: one.base_plan_id for one in local.variants}
    for plan_id, one in intents.items():
        if plan_id not in {*bases, *(plan.id for plan in local.plans)}:
            raise typer.BadParameter(f"{plan_id!r} is no plan of {config}", param_hint="--intent")
        if one != "skip" and intents.get(bases.get(plan_id, "")) == "skip":
            raise typer.BadParameter(f"{plan_id} goes with its base, which is skipped", param_hint="--intent")
    settings = settings_for(prod=prod)
    if settings.is_live and not prod:
        raise ConfigurationError(
            "AUTUMN_SECRET_KEY is a production key: push changes production only with --prod, and with that key in "
            "AUTUMN_PROD_SECRET_KEY."
        )

    async def do() -> None:
        async with connect(settings) as client:
            with progress("Comparing with Autumn"):
                pending = await find_pending(client, local)
            if output_format == "table" or not pending.changes:
                _show(pending, output_format, where=_place(settings))
            if not pending.changes:
                return
            _refuse_blocked(pending)
            decided = _decide(pending.decisions, intents, bases)
            skipped = {plan_id for plan_id, chosen in decided.items() if chosen == "skip"}
            skipped |= {variant_id for variant_id, base_id in bases.items() if base_id in skipped}
            pending, left_out = pending.without(skipped)
            if left_out:
                note(f"Skipped: {', '.join(f'{change.kind} {change.id}' for change in left_out)}.")
            if not pending.changes:
                _done(Pending((), {}, (), ()), output_format, settings)
                return
            _ask(pending, settings, yes=yes)
            with progress("Pushing"):
                await _revive(client, pending)
                await _update(client, local, pending, decided)
                await _archive(client, local, pending)
            _done(pending, output_format, settings)

    run(do())


def _refuse_blocked(pending: Pending) -> None:
    if pending.blocked:
        raise CatalogError(f"Autumn refuses a change: {'; '.join(pending.blocked)}. Nothing was pushed.")


def _done(pending: Pending, output_format: Format, settings: CommandSettings) -> None:
    """Say what was pushed: for programs the changes, for people how many they were."""
    if output_format != "table":
        _show(pending, output_format, where=_place(settings))
    elif pending.changes:
        print(f"Pushed {_count(pending)} to {_place(settings)}.")


def _read_intent(text: str) -> tuple[str, Intent]:
    plan_id, _, name = text.partition("=")
    for one in get_args(Intent):
        if name == one and plan_id:
            return plan_id, one
    raise typer.BadParameter(
        f"{text!r} has to be a plan's id, =, and one of {', '.join(get_args(Intent))}", param_hint="--intent"
    )


def _decide(
    decisions: Sequence[Decision], intents: Mapping[str, Intent], bases: Mapping[str, str]
) -> dict[str, Intent]:
    """What to do about each of the `decisions`: as in `intents`, else asked. Variants go with a base that is skipped.

    Raises:
        typer.Exit: There is no terminal to ask on.
    """
    open_ones = [
        one
        for one in decisions
        if intents.get(one.plan_id) not in one.choices and intents.get(bases.get(one.plan_id, "")) != "skip"
    ]
    if open_ones and not can_ask():
        for one in open_ones:
            note(
                f"Plan {one.plan_id} needs a decision, because {one.reason}: "
                f"add --intent {one.plan_id}={'|'.join(one.choices)}"
            )
        note("Nothing was pushed.")
        raise typer.Exit(NO)
    decided: dict[str, Intent] = {}
    for one in sorted(decisions, key=lambda one: one.plan_id in bases):
        given = intents.get(one.plan_id)
        if decided.get(bases.get(one.plan_id, "")) == "skip":
            decided[one.plan_id] = "skip"
        elif given in one.choices:
            decided[one.plan_id] = given
        else:
            question = f"Plan {one.plan_id} changes and {one.reason}. What now?"
            decided[one.plan_id] = choose(question, {choice: MEANING[choice] for choice in one.choices})
    return decided


def _ask(pending: Pending, settings: CommandSettings, *, yes: bool) -> None:
    if pending.removals:
        note(f"This deletes or archives: {', '.join(pending.removals)}.")
    confirm(f"Push {_count(pending)} to {_place(settings)}?", yes=yes)
    if settings.is_live:
        confirm("This is production, where customers pay. Push all the same?", yes=yes)


async def _update(client: AutumnClient, local: Catalog, pending: Pending, decided: Mapping[str, Intent]) -> None:
    """Send the catalog. An error is looked into: Autumn says no when Stripe fails, and has then written everything."""
    try:
        await client.call("catalog.update", update_body(local, decided, pending.changes))
    except AutumnError as error:
        left = {(change.kind, change.id) for change in differences(local, await read_remote(client))}
        if not left.isdisjoint((change.kind, change.id) for change in pending.changes):
            raise
        note(f"Autumn answered with an error, and has the catalog of the file all the same: {error}")


async def _archive(client: AutumnClient, local: Catalog, pending: Pending) -> None:
    """Archive the features that the file archives: catalog.update does not know about that."""
    changed = {change.id for change in pending.changes if change.kind == "feature"}
    for feature in local.features:
        if feature.archived and feature.id in changed:
            await client.call(f"features/{feature.id}", {"archived": True}, repeat=Repeat.IDEMPOTENT)


async def _revive(client: AutumnClient, pending: Pending) -> None:
    """Bring back from the archive what the file has: catalog.update leaves it there."""
    for change in pending.archived:
        home = "features" if change.kind == "feature" else "products"
        await client.call(f"{home}/{change.id}", {"archived": False}, repeat=Repeat.IDEMPOTENT)


def _show(pending: Pending, output_format: Format, *, where: str) -> None:
    rows = pending.rows()
    if output_format == "csv":
        rows = [[action, what, "; ".join(detail)] for action, what, detail in rows]
    show(
        output_format,
        _COLUMNS,
        rows,
        document={
            "changes": [
                {**asdict(change), "note": pending.notes.get((change.kind, change.id))} for change in pending.changes
            ]
        },
        empty=f"In step: the file and {where} have the same catalog.",
    )


def _place(settings: CommandSettings) -> str:
    if settings.emulator:
        return "the emulator"
    return "production" if settings.is_live else "the sandbox"


def _count(pending: Pending) -> str:
    return "1 change" if len(pending.changes) == 1 else f"{len(pending.changes)} changes"
