"""Model names to credits: which price a requested model has, if any."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Self

from fastapi_autumn.errors import AmountError, PriceListError
from fastapi_autumn.pricing._amounts import credits as to_credits
from fastapi_autumn.pricing._rate_tables import is_rate_table, rate_of
from fastapi_autumn.pricing._rates import Rate
from fastapi_autumn.pricing._toml import TomlFile

__all__ = ["ModelPrices", "Price"]

Price = Decimal | Rate
"""What a call costs: so many credits, or what a rate says once it is known what the call used."""

_LONGEST_NAME = 256
_SNAPSHOT = re.compile(
    r"(?P<model>.+)[-@](?P<year>20[0-9]{2})(?P<dash>-?)(?P<month>[0-9]{2})(?P=dash)(?P<day>[0-9]{2})"
)


class ModelPrices:
    """What a call of each model costs, in credits. Immutable; every price is checked on construction.

    A price is an amount for each call, or a rate, such as `tokens(input=25, output=100)`.

    A requested name finds its price by the first of these that is listed:

    1. the name itself, then what it is an alias of;
    2. `provider/model`: the part after the first slash;
    3. a dated snapshot (`gpt-4o-2024-11-20`, `claude-sonnet-4-20250514`, `claude-sonnet-4@20250514`): the name without
       its date. Never the other way round: `gpt-4o` does not find a listed `gpt-4o-2024-11-20`, which may cost
       something else. Shorter endings such as `gpt-4-0613` are no dates; list them or give them an alias.

    Names are compared exactly, upper and lower case included.

    Iterating gives the listed models in their order, `len` counts them, and `name in prices` says whether a call of
    that name can be charged, by any of the rules above.

    Args:
        models: credits per call, or a rate; see `fastapi_autumn.pricing.credits` for what is an amount.
        aliases: further names. An alias may lead to another alias, but must end at a listed model.

    Raises:
        PriceListError: a price that is not a positive amount, a name that no request can carry, or an alias that
            leads nowhere, in a circle, or hides a model.
    """

    __slots__ = ("_aliases", "_models", "_prices")

    def __init__(
        self, models: Mapping[str, Decimal | float | str | Rate], *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self._models = MappingProxyType(_checked_models(models, TomlFile()))
        self._aliases = MappingProxyType(dict(aliases or {}))
        self._prices = {**self._models, **_checked_aliases(self._aliases, self._models, TomlFile())}

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a file with a `[models]` table of credits per call or rates and, if wanted, an `[aliases]` table.

        A rate is a table: `{ input = 25, output = 100 }`, `{ images = { "1024x1024" = 4 } }`, `{ second = 0.1 }`,
        `{ character = 0.001 }`, `{ unit = 2 }`, each with the further arguments of its function.

        Raises:
            PriceListError: as the constructor, and for a file that cannot be read; names the file and the line.
        """
        file = TomlFile.read(Path(path))
        tables = {"models": file.table("models"), "aliases": file.table("aliases")}
        for key in file.content:
            if key not in tables:
                raise PriceListError(f"{file.at((key,))}{key!r} is unknown; a price list has [models] and [aliases]")
        # Checked here first, so that a refusal names its line; the constructor knows no file.
        _checked_aliases(tables["aliases"], _checked_models(tables["models"], file), file)
        return cls(tables["models"], aliases=tables["aliases"])

    def with_models(
        self, models: Mapping[str, Decimal | float | str | Rate], *, aliases: Mapping[str, str] | None = None
    ) -> Self:
        """A new list with `models` and `aliases` added to these, or put in their place."""
        return type(self)({**self._models, **models}, aliases={**self._aliases, **(aliases or {})})

    @property
    def models(self) -> Mapping[str, Price]:
        """The listed models and their prices."""
        return self._models

    @property
    def aliases(self) -> Mapping[str, str]:
        """The aliases, each with the name that was written for it."""
        return self._aliases

    def get_model_credits(self, model: str) -> Decimal | None:
        """The credits that each call of `model` costs; None for a name that has no price, or a rate."""
        price = self.get_model_price(model)
        return None if isinstance(price, Rate) else price

    def get_model_price(self, model: str) -> Price | None:
        """The price of `model`; None for a name that has none.

        `model` may come straight from a request: empty, over-long (more than 256 characters) and unprintable names
        have no price.
        """
        # No cache: strangers choose the names, and the commonest case is this one look-up.
        price = self._prices.get(model)
        if price is not None or len(model) > _LONGEST_NAME or not model.isprintable():
            return price
        provider, _, rest = model.partition("/")
        names = (model, rest) if provider and rest else (model,)
        for name in (*names, *map(_without_date, names)):
            if (price := self._prices.get(name)) is not None:
                return price
        return None

    def __contains__(self, model: object) -> bool:
        return isinstance(model, str) and self.get_model_price(model) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._models)} models, {len(self._aliases)} aliases>"


def _checked_models(models: Mapping[str, object], file: TomlFile) -> dict[str, Price]:
    if not models:
        raise PriceListError(f"{file.at(())}a price list needs at least one model; write its name and its credits")
    return {name: _checked_price(name, price, file) for name, price in models.items()}


def _checked_aliases(aliases: Mapping[str, object], models: Mapping[str, Price], file: TomlFile) -> dict[str, Price]:
    return {alias: models[_target(alias, aliases, models, file)] for alias in aliases}


def _checked_price(name: str, price: object, file: TomlFile) -> Price:
    where = file.at(("models", name))
    _check_name(name, where)
    if isinstance(price, Rate):
        return price
    if isinstance(price, Mapping) and is_rate_table(price):
        try:
            return rate_of(price)
        except (AmountError, TypeError) as error:
            raise PriceListError(f"{where}the price of {name!r} is no price: {error}") from None
    if isinstance(price, Mapping):
        inner = next(iter(price), "")
        raise PriceListError(
            f'{file.at(("models", name, inner))}a model name with a dot needs quotes; write "{name}.{inner}" = ...'
        )
    try:
        return to_credits(price)  # type: ignore[arg-type] # from a file anything can come, and credits refuses it
    except AmountError as error:
        raise PriceListError(f"{where}the price of {name!r} is no price: {error}; write credits, such as 3") from None


def _check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        raise PriceListError(f'{where}{name!r} is no model name; write it as requests carry it, such as "gpt-4o"')
    if len(name) > _LONGEST_NAME:
        raise PriceListError(f"{where}a model name has at most {_LONGEST_NAME} characters, not {len(name)}")


def _target(alias: str, aliases: Mapping[str, object], models: Mapping[str, Price], file: TomlFile) -> str:
    """Follow `alias` to the listed model that it stands for."""
    where = file.at(("aliases", alias))
    _check_name(alias, where)
    if alias in models:
        raise PriceListError(f"{where}{alias!r} is listed as a model and as an alias; keep one of the two")
    seen: list[str] = [alias]
    while (target := aliases.get(seen[-1])) is not None:
        if not isinstance(target, str):
            raise PriceListError(f"{where}the alias {alias!r} must be the name of a model, in quotes")
        if target in models:
            return target
        if target in seen:
            raise PriceListError(f"{where}the alias {alias!r} goes in a circle: {' -> '.join([*seen, target])}")
        seen.append(target)
    raise PriceListError(f"{where}the alias {alias!r} leads to {seen[-1]!r}, which is not listed; add it to [models]")


def _without_date(name: str) -> str:
    """`name` without the date of its snapshot; `name` itself where it does not end in a date of the calendar."""
    if (found := _SNAPSHOT.fullmatch(name)) is None:
        return name
    try:
        date(int(found["year"]), int(found["month"]), int(found["day"]))
    except ValueError:
        return name
    return found["model"]
