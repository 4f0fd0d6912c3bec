"""A catalog as `autumn.config.ts`, laid out as the official `atmn pull` writes it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi_autumn.catalog._catalog import Catalog, kind_of
from fastapi_autumn.catalog._layout import Expression, Node, Style, laid_out
from fastapi_autumn.catalog._model import Feature, Item, ItemPrice, Plan, Variant
from fastapi_autumn.catalog._names import Kind, camel_case, variable_names
from fastapi_autumn.catalog._python import in_order
from fastapi_autumn.catalog._wire import feature_to_wire, plan_to_wire, to_json

__all__ = ["render_typescript"]

_PRETTIER = Style(width=80, indent="\t", indent_width=2)
_RESERVED = frozenset(
    {
        *("await", "break", "case", "catch", "class", "const", "continue", "debugger", "default", "delete", "do"),
        *("else", "enum", "export", "extends", "false", "finally", "for", "function", "if", "implements", "import"),
        *("in", "instanceof", "interface", "let", "new", "null", "package", "private", "protected", "public"),
        *("return", "static", "super", "switch", "this", "throw", "true", "try", "typeof", "var", "void", "while"),
        *("with", "yield"),
    }
)
"""Words that no variable of a TypeScript module can be."""

_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PRICE_ORDER = (
    "amount",
    "tiers",
    "additional_currencies",
    "billing_units",
    "billing_method",
    "max_purchase",
    "tier_behavior",
    "interval",
    "interval_count",
)


def render_typescript(catalog: Catalog) -> str:
    """The text of an `autumn.config.ts` that defines `catalog`, with variables made from the ids."""
    names = variable_names(((kind_of(one), one.id) for one in in_order(catalog)), case=camel_case, taken=_RESERVED)
    booleans = {feature.id for feature in catalog.features if feature.type == "boolean"}
    writer = _Writer(names, booleans)
    given = [plan.billing_controls for plan in catalog.plans]
    given += [variant.customize.billing_controls for variant in catalog.variants if variant.customize is not None]
    controls = any(one is not None for one in given)
    imports = [*(["billingControls"] if controls else []), "feature", "item", "plan"]
    blocks: dict[str, list[str]] = {"// Features": [], "// Plans": []}
    for one in in_order(catalog):
        prefix = f"export const {names[kind_of(one), one.id]} = "
        text = laid_out(writer.definition(one), _PRETTIER, prefix=prefix) + ";\n"
        blocks["// Features" if isinstance(one, Feature) else "// Plans"].append(text)
    sections = [f"{title}\n" + "\n".join(texts) for title, texts in blocks.items() if texts]
    return "\n".join([f"import {{ {', '.join(imports)} }} from 'atmn';\n", *sections])


class _Writer:
    """Writes definitions that refer to features by their variables."""

    def __init__(self, names: Mapping[tuple[Kind, str], str], booleans: set[str]) -> None:
        self._names = names
        self._booleans = booleans

    def definition(self, one: Feature | Plan | Variant) -> Node:
        if isinstance(one, Feature):
            return _call("feature", _feature(one))
        if isinstance(one, Plan):
            return _call("plan", self._plan(one))
        base = self._names.get(("plan", one.base_plan_id), camel_case(one.base_plan_id))
        return _call(f"{base}.variant", self._variant(one))

    def _plan(self, plan: Plan) -> dict[str, Any]:
        wire = plan_to_wire(plan)
        trial = wire["free_trial"]
        return {
            "id": plan.id,
            "name": plan.name,
            "description": plan.description,
            "group": plan.group or None,
            "add_on": plan.add_on or None,
            "auto_enable": plan.auto_enable or None,
            "archived": plan.archived or None,
            "price": None if wire["price"] is None else _object(wire["price"], expanded=True),
            "items": self._list(plan.items),
            "free_trial": None
            if trial is None
            else {name: trial[name] for name in ("duration_length", "duration_type", "card_required")},
            "billing_controls": None if plan.billing_controls is None else _controls(wire["billing_controls"]),
            "licenses": wire["licenses"] or None,
        }

    def _variant(self, variant: Variant) -> dict[str, Any]:
        customize = variant.customize
        if customize is None:
            return {"id": variant.id, "name": variant.name}
        wire = to_json(customize)
        changed: dict[str, Any] = {}
        for name, value in wire.items():
            items = {"items": customize.items, "add_items": customize.add_items}.get(name)
            if items is not None:
                changed[name] = self._list(items)
            elif name == "billing_controls":
                changed[name] = _controls(value)
            elif name == "remove_items":
                entries = [_object(self._references(entry), expanded=True) for entry in value]
                changed[name] = Node("[", "]", tuple(("", entry) for entry in entries), expanded=True)
            else:
                changed[name] = Node("null", "") if value is None else value
        return {"id": variant.id, "name": variant.name, "customize": _object(changed, expanded=True)}

    def _list(self, items: Sequence[Item]) -> Node:
        return Node("[", "]", tuple(("", self._item(item)) for item in items), expanded=bool(items))

    def _item(self, item: Item) -> Node:
        wire = self._references(to_json(item))
        if "included" not in wire and not item.unlimited and item.feature_id not in self._booleans:
            wire["included"] = 0
        if isinstance(item.price, ItemPrice):
            wire["price"] = {name: wire["price"][name] for name in _PRICE_ORDER if name in wire["price"]}
        known = ("feature_id", "included", "unlimited", "reset", "price")
        ordered = {name: wire.pop(name) for name in known if name in wire} | wire
        for name in ("reset", "price"):
            if name in ordered:
                ordered[name] = _object(ordered[name], expanded=True)
        return _call("item", ordered, expanded=len(ordered) > 1)

    def _references(self, wire: dict[str, Any]) -> dict[str, Any]:
        variable = self._names.get(("feature", wire.get("feature_id", "")))
        return wire if variable is None else {**wire, "feature_id": Node(f"{variable}.id", "")}


def _feature(feature: Feature) -> dict[str, Any]:
    wire = feature_to_wire(feature)
    ordered = {"id": wire.pop("feature_id"), "name": wire.pop("name"), "type": wire.pop("type")}
    for name in ("model_markups", "provider_markups"):
        if name in wire:  # their keys are names of models and providers, which stay as they are
            entries = ((f"{_key(key, camel=False)}: ", _value(entry)) for key, entry in wire[name].items())
            wire[name] = Node("{", "}", tuple(entries), padding=" ")
    for name in ("consumable", "event_names"):
        if name in wire:
            ordered[name] = wire.pop(name)
    return {**ordered, "archived": feature.archived or None, **wire}


def _controls(values: Mapping[str, Any]) -> Node:
    return Node("billingControls({", "})", _entries(values, camel=False), padding=" ", expanded=True)


def _call(name: str, values: Mapping[str, Any], *, expanded: bool = True) -> Node:
    return Node(f"{name}({{", "})", _entries(values), padding=" ", expanded=expanded)


def _object(values: Mapping[str, Any], *, expanded: bool = False) -> Node:
    return Node("{", "}", _entries(values), padding=" ", expanded=expanded)


def _entries(values: Mapping[str, Any], *, camel: bool = True) -> tuple[tuple[str, Expression], ...]:
    """The entries that are not None. Billing controls keep the names that they have on the wire."""
    return tuple(
        (f"{_key(name, camel=camel)}: ", _value(value, camel=camel))
        for name, value in values.items()
        if value is not None
    )


def _key(name: str, *, camel: bool) -> str:
    if not _IDENTIFIER.fullmatch(name):
        return _quoted(name)
    return camel_case(name) if camel else name


def _value(value: Any, *, camel: bool = True) -> Expression:
    if isinstance(value, Node):
        return value
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return Node("{", "}", _entries(value, camel=camel), padding=" ")
    if isinstance(value, Sequence):
        # Prettier gives each entry its line where there are several objects with several keys.
        several = len(value) > 1 and all(isinstance(entry, Mapping) and len(entry) > 1 for entry in value)
        return Node("[", "]", tuple(("", _value(entry, camel=camel)) for entry in value), expanded=several)
    return json.dumps(value)


def _quoted(text: str) -> str:
    """A TypeScript string, in double quotes only where that saves escapes, as Prettier has it."""
    body = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')
    body = body.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    if text.count("'") > text.count('"'):
        return '"' + body.replace('"', '\\"') + '"'
    return "'" + body.replace("'", "\\'") + "'"
