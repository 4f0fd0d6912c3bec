"""`autumn models`: does the price list fit the catalog, and do the prices cover what the models cost?"""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from fastapi_autumn.catalog import Catalog, validate
from fastapi_autumn.cli._backend import CommandSettings
from fastapi_autumn.cli._catalog import load
from fastapi_autumn.cli._console import note, show
from fastapi_autumn.cli._conventions import NO, CatalogFile, OutputFormat, amount_option
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.pricing import Counts, ModelPrices, Rate
from fastapi_autumn.pricing.suggestions import Suggestion, suggest

__all__ = ["models"]

_COLUMNS = ["model", "price", "credits", "suggested", "dollars_per_call", "priced_as", "finding"]


def models(
    *,
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Only these; they need not be listed.", show_default=False),
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="The price list.", show_default="AUTUMN_PRICES")] = None,
    config: CatalogFile = Path("autumn_config.py"),
    input_tokens: Annotated[int, typer.Option(min=0, help="What a typical call reads.")] = 1000,
    output_tokens: Annotated[int, typer.Option(min=0, help="What a typical call writes.")] = 500,
    dollars_per_credit: Annotated[
        Decimal, typer.Option(parser=amount_option, metavar="AMOUNT", help="What customers pay for a credit.")
    ] = Decimal("0.01"),
    margin: Annotated[
        Decimal, typer.Option(parser=amount_option, metavar="SHARE", help="The share of it to keep, 0 up to 1.")
    ] = Decimal("0.3"),
    output_format: OutputFormat = "table",
) -> None:
    """Check the price list against the catalog, and suggest prices.

    Suggestions turn what the provider takes for a typical call into credits; they need the extra "prices". Ends with 3
    if a listed model is charged below its cost, or if no plan grants what the models are charged to.

    Examples:
        autumn models --prices prices.toml
        autumn models gpt-4o claude-sonnet-4 --dollars-per-credit 0.01 --margin 0.5
    """
    settings = CommandSettings.load()
    listed = _price_list(prices or settings.prices, needed=not model)
    asked = model or list(listed.models if listed else ())
    suggested = _suggestions(
        asked,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        dollars_per_credit=dollars_per_credit,
        margin=margin,
    )
    typical = Counts(input=input_tokens, output=output_tokens)
    found = [_document(name, listed, suggested.get(name), dollars_per_credit, typical) for name in asked]
    show(output_format, _COLUMNS, [[one[name] for name in _COLUMNS] for one in found], document={"list": found})
    problems = _catalog_problems(load(config), settings.feature_id, listed) if listed and config.exists() else []
    for problem in problems:
        note(f"Warning: {problem}")
    if problems or any(one["finding"] == "below cost" for one in found):
        raise typer.Exit(NO)


def _price_list(path: Path | None, *, needed: bool) -> ModelPrices | None:
    if path is None and needed:
        raise ConfigurationError("There is no price list; name it with --prices or AUTUMN_PRICES, or give model names.")
    return None if path is None else ModelPrices.from_toml(path)


def _suggestions(models: list[str], **terms: Any) -> Mapping[str, Suggestion]:
    try:
        found = {name: suggest(name, **terms) for name in models}
    except ImportError as error:
        note(f"{str(error).capitalize()}")
        return {}
    return {name: one for name, one in found.items() if one is not None}


def _document(
    name: str,
    listed: ModelPrices | None,
    suggestion: Suggestion | None,
    dollars_per_credit: Decimal,
    typical: Counts,
) -> dict[str, Any]:
    price = None if listed is None else listed.get_model_price(name)
    # A rate by anything but tokens has no typical call to be compared.
    credits_ = price.cost(typical) or None if isinstance(price, Rate) else price
    finding = None
    if listed is not None and price is None:
        finding = "not listed"
    elif credits_ is not None and suggestion is not None:
        if credits_ * dollars_per_credit < suggestion.dollars_per_call:
            finding = "below cost"
        elif credits_ < suggestion.credits:
            finding = "below margin"
    return {
        "model": name,
        "price": None if price is None else str(price) if isinstance(price, Rate) else f"{price:f} per call",
        "credits": None if credits_ is None else f"{credits_:f}",
        "suggested": None if suggestion is None else f"{suggestion.credits:f}",
        "dollars_per_call": None if suggestion is None else f"{suggestion.dollars_per_call.normalize():f}",
        "priced_as": None if suggestion is None else suggestion.priced_as,
        "finding": finding,
    }


def _catalog_problems(catalog: Catalog, feature_id: str, listed: ModelPrices) -> list[str]:
    """What is wrong only because these models are charged to `feature_id`."""
    alone = {str(problem) for problem in validate(catalog)}
    together = validate(catalog, feature_ids=[feature_id], priced_models=list(listed.models))
    return [str(problem) for problem in together if str(problem) not in alone]
