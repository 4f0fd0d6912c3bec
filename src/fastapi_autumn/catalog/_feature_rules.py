"""The rules for one feature: what its type needs, and what its credit schema may name."""

from collections.abc import Iterator, Mapping
from typing import get_args

from fastapi_autumn.catalog._model import Feature, FeatureType, ModelMarkup
from fastapi_autumn.catalog._rules import name_problems, number_problem

__all__ = ["feature_problems"]


def feature_problems(feature: Feature, features: Mapping[str, Feature]) -> Iterator[str]:
    """What Autumn would refuse about `feature`."""
    yield from name_problems(feature.id, feature.name)
    if feature.type not in get_args(FeatureType):
        yield f"type {feature.type!r} is unknown; write one of {', '.join(get_args(FeatureType))}"
    if feature.type == "metered" and not isinstance(feature.consumable, bool):
        yield "consumable is missing; write True (calls, tokens: used up) or False (seats: held)"
    if feature.type == "credit_system":
        yield from _schema_errors(feature, features)
    elif feature.credit_schema is not None:
        yield 'credit_schema belongs to a credit system; write type="credit_system" or leave it out'
    markups = [("default_markup", feature.default_markup)]
    markups += [(f"provider_markups[{name!r}]", value) for name, value in (feature.provider_markups or {}).items()]
    for model, entry in (feature.model_markups or {}).items():
        markups.append((f"model_markups[{model!r}]", entry.markup))
        yield from _model_errors(model, entry)
    for field, value in markups:
        if value is not None and (wrong := number_problem(value, least=-100)):
            yield f"{field} {wrong} (percent; -100 makes it free)"
    if feature.type != "ai_credit_system" and any(value is not None for _, value in markups):
        yield 'markups belong to an AI credit system; write type="ai_credit_system" or leave them out'


def _model_errors(model: str, entry: ModelMarkup) -> Iterator[str]:
    if "/" not in model:
        yield f'model_markups[{model!r}] needs the provider; write "provider/{model}"'
    costs = (entry.input_cost, entry.output_cost)
    for cost in costs:
        if cost is not None and (wrong := number_problem(cost)):
            yield f"model_markups[{model!r}]: a cost {wrong} (dollars a million tokens)"
    if model.startswith("custom/") and None in costs:
        yield f"model_markups[{model!r}]: a custom model has no public price; write input_cost and output_cost"


def _schema_errors(feature: Feature, features: Mapping[str, Feature]) -> Iterator[str]:
    if not feature.credit_schema:
        yield "credit_schema is empty; write which metered feature costs how many credits, such as {ai_usage: 1}"
    for metered_id, cost in (feature.credit_schema or {}).items():
        target = features.get(metered_id)
        if target is None:
            yield f'credit_schema names "{metered_id}", which the catalog does not define; define it or correct the id'
        elif target.type != "metered" or not target.consumable:
            yield f'credit_schema names "{metered_id}", which is not metered and consumable; name one that is'
        if wrong := number_problem(cost, above=0):
            yield f'credit_schema: the cost of "{metered_id}" {wrong}'
