"""A catalog as Python source: `autumn_config.py`, and the types of its ids."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeAlias

from fastapi_autumn.catalog._catalog import Catalog, kind_of
from fastapi_autumn.catalog._layout import Expression, Node, Style, laid_out, nodes
from fastapi_autumn.catalog._model import (
    Customize,
    Feature,
    FreeTrial,
    Item,
    ItemFilter,
    ModelMarkup,
    Plan,
    PlanLicense,
    PlanPrice,
    PrepaidPrice,
    Proration,
    Reset,
    ResetPrice,
    Rollover,
    Tier,
    UsagePrice,
    Variant,
)
from fastapi_autumn.catalog._names import BUILDERS, Kind
from fastapi_autumn.catalog._wire import to_json

__all__ = [
    "POSITIONAL",
    "PYTHON",
    "References",
    "builders_in",
    "expression",
    "import_line",
    "in_order",
    "quoted",
    "render",
    "render_types",
]

PYTHON = Style(width=88, indent="    ", indent_width=4)
"""The width that Black and Ruff start from, so that they leave a written file alone."""

References: TypeAlias = Callable[[Kind, str], str]
"""From a kind and an id to the source that refers to it: a variable, or the id in quotes."""

POSITIONAL: Mapping[str, Sequence[str]] = {
    "Reset": ("interval", "interval_count"),
    "Tier": ("to", "amount"),
    "item": ("feature",),
    "item_filter": ("feature",),
    "plan_license": ("plan",),
    "price": ("amount",),
}
"""The arguments that are written without their names."""

_Instead: TypeAlias = Mapping[str, Expression | None]


def render(catalog: Catalog) -> str:
    """The text of an `autumn_config.py` that defines `catalog`."""
    names = catalog.variable_names()
    defined: set[tuple[Kind, str]] = set()

    def reference(kind: Kind, id_: str) -> str:
        return names[kind, id_] if (kind, id_) in defined else quoted(id_)

    blocks: dict[str, list[str]] = {"# Features": [], "# Plans": []}
    used: set[str] = set()
    for one in in_order(catalog):
        node = expression(one, reference)
        used |= builders_in(node)
        block = blocks["# Features" if isinstance(one, Feature) else "# Plans"]
        block.append(laid_out(node, PYTHON, prefix=f"{names[kind_of(one), one.id]} = "))
        defined.add((kind_of(one), one.id))
    parts = ['"""What customers can have: features and plans, kept in step with Autumn."""', import_line(used)]
    parts += [f"{title}\n" + "\n".join(texts) for title, texts in blocks.items() if texts]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_types(catalog: Catalog) -> str:
    """The text of an `autumn_types.py`: the ids as `Literal` types, for code that names features and plans."""
    ids = {
        "FeatureId": [feature.id for feature in catalog.features],
        "PlanId": [id_ for kind, id_ in catalog.ids() if kind != "feature"],
    }
    imports = sorted({"Literal" if values else "Never" for values in ids.values()})
    lines = ['"""The ids of the catalog as types. Written by `autumn pull`; changes are lost."""', ""]
    lines += [f"from typing import {', '.join(imports)}"]
    for name, values in ids.items():
        literal: Expression = Node("Literal[", "]", tuple(("", quoted(id_)) for id_ in values)) if values else "Never"
        lines += ["", laid_out(literal, PYTHON, prefix=f"{name} = ")]
    return "\n".join(lines) + "\n"


def in_order(catalog: Catalog) -> Iterable[Feature | Plan | Variant]:
    """Everything in the order of a file: features, then each plan with its variants."""
    yield from catalog.features
    for plan in catalog.plans:
        yield plan
        yield from catalog.variants_of(plan.id)
    bases = {plan.id for plan in catalog.plans}
    yield from (variant for variant in catalog.variants if variant.base_plan_id not in bases)


def import_line(names: Iterable[str]) -> str:
    """The import of the builders in `names`; empty for none."""
    if not (sorted_names := sorted(names, key=lambda name: (name[0].islower(), name))):
        return ""
    line = f"from fastapi_autumn.catalog import {', '.join(sorted_names)}"
    if len(line) <= PYTHON.width:
        return line
    return "\n".join(["from fastapi_autumn.catalog import (", *(f"    {name}," for name in sorted_names), ")"])


def builders_in(node: Expression) -> set[str]:
    """The builders that the source of `node` needs imported."""
    return {name for one in nodes(node) if (name := one.opening.removesuffix("(")) in BUILDERS}


def quoted(text: str) -> str:
    """`text` as a Python literal in double quotes, as formatters want it."""
    literal = repr(text)
    if literal.startswith('"'):
        return literal
    return '"' + literal[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'


def expression(value: Any, reference: References) -> Expression:
    """The source that builds `value`, without what is a default anyway."""
    return _WRITERS.get(type(value), _plain)(value, reference)


def _feature(value: Feature, reference: References) -> Node:
    schema = value.credit_schema
    instead: _Instead = {"credit_schema": None if schema is None else _schema(schema, reference)}
    return _call("feature", value, reference, instead=instead)


def _variant(value: Variant, reference: References) -> Node:
    base = reference("plan", value.base_plan_id)
    if base.isidentifier():
        return _call(f"{base}.variant", value, reference, instead={"base_plan_id": None, "archived": None})
    return _call("Variant", value, reference, instead={"archived": None})


def _item(value: Item, reference: References) -> Node:
    # Autumn lists what is unlimited with a reset that never comes.
    never: _Instead = {"reset": None} if value.unlimited else {}
    instead = {"feature_id": reference("feature", value.feature_id), "entity_feature_id": None, **never}
    node = _call("item", value, reference, positional=("feature_id",), instead=instead)
    if value.entity_feature_id is None:
        return node
    entity = ("entity_feature=", reference("feature", value.entity_feature_id))
    return Node(node.opening, node.closing, (*node.entries, entity))


def _item_filter(value: ItemFilter, reference: References) -> Node:
    feature = None if value.feature_id is None else reference("feature", value.feature_id)
    return _call("item_filter", value, reference, positional=("feature_id",), instead={"feature_id": feature})


def _license(value: PlanLicense, reference: References) -> Node:
    instead: _Instead = {"license_plan_id": reference("plan", value.license_plan_id)}
    return _call("plan_license", value, reference, positional=("license_plan_id",), instead=instead)


def _reset(value: Reset, reference: References) -> Expression:
    if value.interval_count is None:
        return quoted(value.interval)
    return _call("Reset", value, reference, positional=POSITIONAL["Reset"])


def _markup(value: ModelMarkup, reference: References) -> Expression:
    given = {name: part for name, part in value._asdict().items() if part is not None}
    if list(given) == ["markup"]:
        return expression(value.markup, reference)
    return Node("ModelMarkup(", ")", tuple((f"{name}=", expression(part, reference)) for name, part in given.items()))


def _plain(value: Any, reference: References) -> Expression:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return Node("{", "}", tuple((f"{quoted(key)}: ", expression(part, reference)) for key, part in value.items()))
    if isinstance(value, Sequence):
        return Node("[", "]", tuple(("", expression(part, reference)) for part in value))
    return repr(to_json(value))


def _schema(schema: Mapping[str, Any], reference: References) -> Node:
    entries = ((f"{reference('feature', id_)}: ", expression(cost, reference)) for id_, cost in schema.items())
    return Node("{", "}", tuple(entries))


def _call(
    name: str,
    value: Any,
    reference: References,
    *,
    positional: Sequence[str] = (),
    instead: _Instead | None = None,
) -> Node:
    """A call with the fields of `value` that are no defaults; `instead` gives the source of some, None leaves out."""
    entries: list[tuple[str, Expression]] = []
    for field in fields(value):
        part = getattr(value, field.name)
        if instead is not None and field.name in instead:
            source = instead[field.name]
        elif field.default is not MISSING and part == field.default:
            source = None
        else:
            source = expression(part, reference)
        if source is not None:
            entries.append(("" if field.name in positional else f"{field.name}=", source))
    return Node(f"{name}(", ")", tuple(entries))


def _calls(name: str) -> Callable[[Any, References], Expression]:
    return lambda value, reference: _call(name, value, reference, positional=POSITIONAL.get(name, ()))


_WRITERS: dict[type, Callable[[Any, References], Expression]] = {
    Customize: _calls("customize"),
    Feature: _feature,
    FreeTrial: _calls("FreeTrial"),
    Item: _item,
    ItemFilter: _item_filter,
    ModelMarkup: _markup,
    Plan: _calls("plan"),
    PlanLicense: _license,
    Proration: _calls("Proration"),
    Reset: _reset,
    Rollover: _calls("Rollover"),
    Tier: _calls("Tier"),
    Variant: _variant,
    **dict.fromkeys((PlanPrice, PrepaidPrice, ResetPrice, UsagePrice), _calls("price")),
}
