"""`autumn check` and `autumn track`: what a service does, by hand."""

from decimal import Decimal
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python

from fastapi_autumn.cli._backend import connect, run, settings_for
from fastapi_autumn.cli._console import show
from fastapi_autumn.cli._conventions import NO, OutputFormat, Prod, amount_option
from fastapi_autumn.models import Balance, CheckResult, TrackResult

__all__ = ["check", "track"]


CustomerId = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
FeatureId = Annotated[str, typer.Argument(metavar="FEATURE", help="The feature's id.")]
EntityId = Annotated[str | None, typer.Option("--entity", help="The entity of the customer, such as a seat.")]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="With the same key it is done only once in 24 hours.")
]


def check(
    *,
    customer: CustomerId,
    feature: FeatureId,
    required_balance: Annotated[
        Decimal,
        typer.Option("--required-balance", "-r", parser=amount_option, metavar="AMOUNT", help="How much is needed."),
    ] = Decimal(1),
    send_event: Annotated[
        bool, typer.Option("--send-event", help="Also take the amount, if it is there.", show_default=False)
    ] = False,
    entity: EntityId = None,
    idempotency_key: Key = None,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """Ask whether a customer may use a feature.

    Ends with 0 if they may, and with 3 if not.

    Examples:
        autumn check user_42 ai_usage
        autumn check user_42 ai_usage --required-balance 5 --send-event
    """
    settings = settings_for(prod=prod)

    async def ask() -> CheckResult:
        async with connect(settings) as client:
            return await client.balances.check(
                customer,
                feature,
                required_balance=required_balance,
                send_event=send_event,
                entity_id=entity,
                idempotency_key=idempotency_key,
            )

    result = run(ask())
    answer = {"allowed": result.allowed, "required_balance": result.required_balance or required_balance}
    _show(answer, result.balance, output_format, result)
    if not result.allowed:
        raise typer.Exit(NO)


def track(
    *,
    customer: CustomerId,
    feature: FeatureId,
    value: Annotated[
        Decimal,
        typer.Option("--value", parser=amount_option, metavar="AMOUNT", help="How much; below 0 gives it back."),
    ] = Decimal(1),
    entity: EntityId = None,
    idempotency_key: Key = None,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """Record usage by hand; a negative value gives it back.

    Examples:
        autumn track user_42 ai_usage --value 3
        autumn track user_42 ai_usage --value -3 --idempotency-key refund-1234
    """
    settings = settings_for(prod=prod)

    async def record() -> TrackResult:
        async with connect(settings) as client:
            return await client.balances.track(
                customer, feature_id=feature, value=value, entity_id=entity, idempotency_key=idempotency_key
            )

    result = run(record())
    moved = None if result.deductions is None else sum((one.value for one in result.deductions), Decimal(0))
    _show({"value": result.value, "moved": moved}, result.balance, output_format, result)


def _show(
    answer: dict[str, Any], balance: Balance | None, output_format: OutputFormat, result: CheckResult | TrackResult
) -> None:
    row = {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in answer.items()}
    if "allowed" in row:
        row["allowed"] = "yes" if row["allowed"] else "no"
    row["balance_of"] = None if balance is None else balance.feature_id
    for name in ("remaining", "usage", "granted"):
        row[name] = None if balance is None else "unlimited" if balance.unlimited else f"{getattr(balance, name):f}"
    show(output_format, list(row), [list(row.values())], document=to_jsonable_python(result))
