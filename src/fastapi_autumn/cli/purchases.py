"""`autumn grant`, `attach` and `cancel`: what support does for a customer by hand."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python

from fastapi_autumn.cli._backend import CommandSettings, connect, run, settings_for
from fastapi_autumn.cli._console import confirm, note, show
from fastapi_autumn.cli._conventions import OutputFormat, Prod, Yes, amount_option
from fastapi_autumn.cli._describe import money
from fastapi_autumn.models import AttachResult, Preview

__all__ = ["attach", "cancel", "grant"]

CustomerId = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id.")]
EntityId = Annotated[str | None, typer.Option("--entity", help="The entity of the customer, such as a seat.")]
Quantities = Annotated[
    list[str] | None,
    typer.Option("--quantity", metavar="FEATURE=UNITS", help="How much of what is bought in advance. May be repeated."),
]
_QUANTITY = re.compile(r"([^=\s]+)=([0-9]{1,12})")


def grant(
    *,
    customer: CustomerId,
    feature: Annotated[str, typer.Argument(metavar="FEATURE", help="The feature's id, such as ai_credits.")],
    amount: Annotated[Decimal, typer.Argument(metavar="AMOUNT", parser=amount_option, help="How many credits.")],
    reason: Annotated[
        str, typer.Option("--key", help="Names the reason, such as welcome; a second grant under it gives nothing.")
    ],
    entity: EntityId = None,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """Give a customer credits, once for each reason.

    A grant that was interrupted can be repeated with the same --key. Autumn remembers it for a day, and longer while
    its credits are not used up.

    Examples:
        autumn grant user_42 ai_credits 100 --key welcome
        autumn grant user_42 ai_credits 25 --key ticket-4711
    """
    settings = settings_for(prod=prod)

    async def give() -> bool:
        async with connect(settings) as client:
            return await client.balances.grant(customer, feature, amount, key=reason, entity_id=entity)

    given = run(give())
    row = {"customer_id": customer, "feature_id": feature, "amount": f"{amount:f}", "key": reason, "granted": given}
    if output_format != "table":
        show(output_format, list(row), [list(row.values())], document=row)
    elif given:
        print(f"{customer} has {amount:f} {feature} more.")
    else:
        print(f"{customer} has had the grant {reason} before; nothing more was given.")


def attach(
    *,
    customer: CustomerId,
    plan: PlanId,
    quantity: Quantities = None,
    entity: EntityId = None,
    no_billing_changes: Annotated[
        bool,
        typer.Option("--no-billing-changes", help="Leave Stripe alone: the plan costs nothing.", show_default=False),
    ] = False,
    yes: Yes = False,
    output_format: OutputFormat = "table",
    prod: Prod = False,
) -> None:
    """Put a customer on a plan: shows what it costs, then asks.

    Prints the address where the customer pays, if they have to.

    Examples:
        autumn attach user_42 pro
        autumn attach user_42 credit_top_up --quantity ai_credits=500
        autumn attach user_42 pro --no-billing-changes --yes
    """
    quantities = _read_quantities(quantity)
    settings = settings_for(prod=prod)

    async def buy() -> AttachResult:
        async with connect(settings) as client:
            if not no_billing_changes:
                _tell(
                    await client.billing.preview_attach(
                        customer, plan, entity_id=entity, feature_quantities=quantities or None
                    )
                )
            confirm(f"Put {customer} on {plan}{_in_production(settings)}?", yes=yes)
            return await client.billing.attach(
                customer,
                plan,
                entity_id=entity,
                feature_quantities=quantities or None,
                no_billing_changes=no_billing_changes or None,
            )

    result = run(buy())
    if output_format != "table":
        row = {"customer_id": customer, "plan_id": plan, "payment_url": result.payment_url}
        show(output_format, list(row), [list(row.values())], document=to_jsonable_python(result))
    elif result.payment_url:
        note(f"{customer} is on {plan} once they have paid here:")
        print(result.payment_url)
        if settings.emulator:
            note("The emulator in this process shows no pages. Add --no-billing-changes, or use autumn emulator serve.")
    else:
        print(f"{customer} is on {plan}.")


def cancel(
    *,
    customer: CustomerId,
    plan: PlanId,
    entity: EntityId = None,
    now: Annotated[bool, typer.Option("--now", help="End it at once, not with its cycle.", show_default=False)] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take a cancellation back before the cycle ends.", show_default=False)
    ] = False,
    yes: Yes = False,
    prod: Prod = False,
) -> None:
    """End a customer's plan with its cycle, or at once.

    Examples:
        autumn cancel user_42 pro
        autumn cancel user_42 pro --undo
        autumn cancel user_42 pro --now
    """
    if now and undo:
        raise typer.BadParameter("a plan that has ended cannot be taken back; leave out either", param_hint="--undo")
    settings = settings_for(prod=prod)
    what = (
        f"Take the cancellation of {plan} back for" if undo else f"End {plan} {'now' if now else 'with its cycle'} for"
    )
    confirm(f"{what} {customer}{_in_production(settings)}?", yes=yes)

    async def change() -> None:
        async with connect(settings) as client:
            await client.billing.update(
                customer,
                plan,
                entity_id=entity,
                cancel_action="uncancel" if undo else "cancel_immediately" if now else "cancel_end_of_cycle",
            )

    run(change())
    print(
        f"{customer} keeps {plan}."
        if undo
        else f"{plan} of {customer} has ended."
        if now
        else f"{plan} of {customer} ends with its cycle."
    )


def _read_quantities(texts: list[str] | None) -> Mapping[str, int]:
    found = {}
    for text in texts or ():
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise typer.BadParameter(
                f"{text!r} has to be a feature's id, =, and a whole number, such as ai_credits=500",
                param_hint="--quantity",
            )
        found[match[1]] = int(match[2])
    return found


def _tell(preview: Preview) -> None:
    """Say what is paid now and later, before anything is done."""
    currency = preview.currency.upper()
    for line in preview.line_items:
        note(f"  {line.display_name}: {money(line.total, currency)}")
    note(f"It costs {money(preview.total, currency)} now.")
    if preview.next_cycle is not None:
        note(f"The next cycle costs {money(preview.next_cycle.total, currency)}.")


def _in_production(settings: CommandSettings) -> str:
    return " in production, where customers pay" if settings.is_live else ""
