"""`autumn customers`, `plans`, `features` and `events`: what Autumn has."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Annotated, Any

import typer

from fastapi_autumn.cli._backend import connect, document, run, settings_for
from fastapi_autumn.cli._console import fields, moment, note, progress, show
from fastapi_autumn.cli._conventions import OutputFormat, Prod
from fastapi_autumn.cli._describe import describe_item, describe_price
from fastapi_autumn.cli._follow import follow_events
from fastapi_autumn.client import AutumnClient, Repeat
from fastapi_autumn.errors import AutumnError, UnexpectedAnswer

__all__ = ["customers", "events", "features", "plans"]

_LONGEST_PAGE = 5000
_AGO = re.compile(r"(\d+)([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=_LONGEST_PAGE, help="How many on a page.")]
StartCursor = Annotated[str, typer.Option(help="Where the page starts: the cursor that the one before ended with.")]
All = Annotated[bool, typer.Option("--all", help="Every page, not only one.", show_default=False)]
Search = Annotated[str | None, typer.Option("--search", "-s", help="Only those whose id or name contains this.")]
Archived = Annotated[bool, typer.Option("--include-archived", help="Also archived ones.", show_default=False)]
OneId = Annotated[str | None, typer.Argument(metavar="ID", help="Show this one.", show_default=False)]


def customers(
    *,
    customer_id: OneId = None,
    search: Annotated[str | None, typer.Option("--search", "-s", help="Part of an id, name or email.")] = None,
    plan: Annotated[list[str] | None, typer.Option("--plan", help="Only those on this plan; may be repeated.")] = None,
    limit: Limit = 50,
    start_cursor: StartCursor = "",
    everything: All = False,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """List customers, or show one.

    Examples:
        autumn customers --search ada
        autumn customers --plan pro --plan team
        autumn customers user_42
        autumn customers --all --format csv > customers.csv
    """
    filters = {"--search": search, "--plan": plan, "--start-cursor": start_cursor, "--all": everything}
    _refuse_with_id(customer_id, filters)
    settings = settings_for(prod=prod)

    async def one() -> None:
        async with connect(settings) as client:
            answer = await client.call("customers.get", {"customer_id": customer_id}, repeat=Repeat.IDEMPOTENT)
        columns = _CUSTOMER_ALONE if output_format == "table" else _CUSTOMER
        _show_one(document(answer, "customers.get"), output_format, columns)

    async def many() -> None:
        body: dict[str, Any] = {"limit": limit, "start_cursor": start_cursor}
        if search:
            body["search"] = search
        if plan:
            body["plans"] = [{"id": plan_id} for plan_id in plan]
        async with connect(settings) as client:
            await _show_pages(client, "customers.list", body, _CUSTOMER, output_format, everything=everything)

    run(many() if customer_id is None else one())


def plans(
    *,
    plan_id: OneId = None,
    search: Search = None,
    include_archived: Archived = False,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """List plans, or show one.

    Examples:
        autumn plans
        autumn plans pro --format json
    """
    _refuse_with_id(plan_id, {"--search": search})
    body = {"include_archived": include_archived or plan_id is not None, "all_versions": False}
    found = _read_catalog(_PLANS, body, prod=prod)
    _show_catalog(_PLANS, found, plan_id, search, output_format)


def features(
    *,
    feature_id: OneId = None,
    search: Search = None,
    include_archived: Archived = False,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """List features, or show one.

    Examples:
        autumn features
        autumn features ai_credits
    """
    _refuse_with_id(feature_id, {"--search": search})
    found = _read_catalog(_FEATURES, {}, prod=prod)
    if feature_id is None and not include_archived:  # unlike plans.list, features.list does not leave them out itself
        found = [feature for feature in found if not feature.get("archived")]
    _show_catalog(_FEATURES, found, feature_id, search, output_format)


def events(
    *,
    customer: Annotated[str | None, typer.Option("--customer", help="Of this customer.")] = None,
    feature: Annotated[list[str] | None, typer.Option("--feature", help="Of this feature; may be repeated.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="Of this entity of the customer.")] = None,
    since: Annotated[
        str, typer.Option(help="From then on: 30m, 24h, 7d, 2w ago, or a date such as 2026-05-28.")
    ] = "7d",
    until: Annotated[str | None, typer.Option(help="Before then, written as --since.", show_default="now")] = None,
    limit: Limit = 50,
    start_cursor: StartCursor = "",
    everything: All = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Go on with new ones as Autumn shows them, oldest first, until Ctrl-C.", show_default=False
        ),
    ] = False,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """List usage events, newest first.

    A refund has a negative value, and the charge_id of the charge that it belongs to. With --follow, JSON has one event
    on a line.

    Examples:
        autumn events --customer user_42 --since 24h
        autumn events --customer user_42 --follow
        autumn events --feature ai_usage --all --format csv > usage.csv
    """
    now = datetime.now(UTC)
    start, end = _milliseconds(since, now, "--since"), None if until is None else _milliseconds(until, now, "--until")
    if end is not None and end <= start:
        raise typer.BadParameter("it has to be later than --since", param_hint="--until")
    if follow and (until or everything or start_cursor):
        raise typer.BadParameter("it has no end; leave out --until, --all and --start-cursor", param_hint="--follow")
    settings = settings_for(prod=prod)

    async def many() -> None:
        body: dict[str, Any] = {"limit": limit, "start_cursor": start_cursor}
        body["custom_range"] = {"start": start} if end is None else {"start": start, "end": end}
        if customer:
            body["customer_id"] = customer
        if entity:
            body["entity_id"] = entity
        if feature:
            body["feature_id"] = feature
        async with connect(settings) as client:
            if follow:
                await follow_events(lambda body: _page(client, "events.list", body), body, _EVENT, output_format)
            await _show_pages(client, "events.list", body, _EVENT, output_format, everything=everything)

    if not follow:
        run(many())
        return
    with suppress(KeyboardInterrupt):  # the way to end it
        run(many())


_Columns = Mapping[str, Callable[[Mapping[str, Any]], Any]]


def _field(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda one: one.get(name)


def _property(name: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda one: (one.get("properties") or {}).get(name)


def _price(plan: Mapping[str, Any]) -> str:
    """What the plan costs, or else what is bought with it, such as a top-up."""
    bought = (
        line
        for item in plan.get("items") or ()
        if item.get("price") and not item.get("included")
        for line in describe_item(item, str(item.get("feature_id")))
    )
    return describe_price(plan.get("price")) or ", ".join(bought)


_CUSTOMER: _Columns = {
    "id": _field("id"),
    "name": _field("name"),
    "email": _field("email"),
    "plans": lambda one: ", ".join(str(plan.get("plan_id")) for plan in one.get("subscriptions") or ()),
    "created": lambda one: moment(one.get("created_at")),
}
_PLAN: _Columns = {
    "id": _field("id"),
    "name": _field("name"),
    "group": _field("group"),
    "version": _field("version"),
    "kind": lambda one: "add-on" if one.get("add_on") else "auto-enabled" if one.get("auto_enable") else "",
    "price": _price,
    "features": lambda one: ", ".join(str(item.get("feature_id")) for item in one.get("items") or ()),
    "archived": _field("archived"),
}
_FEATURE: _Columns = {
    "id": _field("id"),
    "name": _field("name"),
    "type": _field("type"),
    "consumable": _field("consumable"),
    "credits": lambda one: ", ".join(
        f"{entry.get('metered_feature_id')}: {entry.get('credit_cost')}" for entry in one.get("credit_schema") or ()
    ),
    "archived": _field("archived"),
}
_CUSTOMER_ALONE: _Columns = {**_CUSTOMER, "balances": lambda one: [*_balances(one)]}
_PLAN_ALONE: _Columns = {
    **_PLAN,
    "features": lambda one: [
        line for item in one.get("items") or () for line in describe_item(item, str(item.get("feature_id")))
    ],
}
_EVENT: _Columns = {
    "time": lambda one: moment(one.get("timestamp")),
    "customer_id": _field("customer_id"),
    "value": _field("value"),
    "model": _property("model"),
    "reason": _property("reason"),
    "charge_id": _property("charge_id"),
    "feature_id": _field("feature_id"),
    "id": _field("id"),
}


def _balances(customer: Mapping[str, Any]) -> Iterator[str]:
    for feature_id, balance in (customer.get("balances") or {}).items():
        left = (
            "unlimited" if balance.get("unlimited") else f"{balance.get('remaining')} of {balance.get('granted')} left"
        )
        resets = moment(balance.get("next_reset_at"))
        yield f"{feature_id}: {left}" + (f", resets {resets}" if resets else "")


@dataclass(frozen=True)
class _Kind:
    """A part of the catalog, which Autumn lists as a whole."""

    name: str
    operation: str
    columns: _Columns
    alone: _Columns


_PLANS = _Kind("plan", "plans.list", _PLAN, _PLAN_ALONE)
_FEATURES = _Kind("feature", "features.list", _FEATURE, _FEATURE)


def _refuse_with_id(one_id: str | None, options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if one_id is not None and value:
            raise typer.BadParameter(
                f"it chooses from many, and {one_id!r} is one; leave out either", param_hint=option
            )


async def _show_pages(
    client: AutumnClient,
    operation: str,
    body: dict[str, Any],
    columns: _Columns,
    output_format: OutputFormat,
    *,
    everything: bool,
) -> None:
    found, cursor = await _page(client, operation, body)
    with progress("Reading all pages"):
        while everything and cursor:
            more, cursor = await _page(client, operation, {**body, "start_cursor": cursor})
            found += more
    _show_many(found, columns, output_format, next_cursor=cursor)
    if cursor and output_format != "json":
        note(f"There is more: add --start-cursor {cursor} for the next page, or --all.")


async def _page(
    client: AutumnClient, operation: str, body: Mapping[str, Any]
) -> tuple[list[Mapping[str, Any]], str | None]:
    answer = document(await client.call(operation, body, repeat=Repeat.IDEMPOTENT), operation)
    found = answer.get("list")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UnexpectedAnswer(operation, "the answer has no list")
    return found, answer.get("next_cursor")


def _read_catalog(kind: _Kind, body: Mapping[str, Any], *, prod: bool) -> list[Mapping[str, Any]]:
    settings = settings_for(prod=prod)

    async def read() -> list[Mapping[str, Any]]:
        async with connect(settings) as client:
            return (await _page(client, kind.operation, body))[0]

    return run(read())


def _show_catalog(
    kind: _Kind, found: list[Mapping[str, Any]], wanted: str | None, search: str | None, output_format: OutputFormat
) -> None:
    if wanted is None:
        text = (search or "").lower()
        found = [one for one in found if text in f"{one.get('id')} {one.get('name')}".lower()]
        _show_many(found, kind.columns, output_format)
        return
    one = next((one for one in found if one.get("id") == wanted), None)
    if one is None:
        raise AutumnError(f"There is no {kind.name} {wanted!r}; see which there are with autumn {kind.name}s.")
    _show_one(one, output_format, kind.alone if output_format == "table" else kind.columns)


def _show_many(found: Sequence[Mapping[str, Any]], columns: _Columns, output_format: OutputFormat, **rest: Any) -> None:
    rows = [[read(one) for read in columns.values()] for one in found]
    if output_format == "table" and rows:
        # Columns in which nothing stands only make the others narrower.
        said = [any(cell not in {None, "", False} for cell in column) for column in zip(*rows, strict=True)]
        columns = dict(compress(columns.items(), said))
        rows = [list(compress(row, said)) for row in rows]
    show(output_format, list(columns), rows, document={"list": found, **rest}, empty="There are none.")


def _show_one(one: Mapping[str, Any], output_format: OutputFormat, columns: _Columns) -> None:
    if output_format == "table":
        fields({name: read(one) for name, read in columns.items()})
    else:
        show(output_format, list(columns), [[read(one) for read in columns.values()]], document=one)


def _milliseconds(text: str, now: datetime, option: str) -> int:
    try:
        if ago := _AGO.fullmatch(text):
            when = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write 30m, 24h, 7d or 2w for how long ago, or a date such as 2026-05-28",
            param_hint=option,
        ) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
