"""Bring an existing `autumn_config.py` in step with a catalog, keeping comments, names and all other statements.

What differs is found in the catalog that the file defines now; only the arguments and entries behind it are changed
in the text. The result is then run: it must define exactly the catalog that was asked for.
"""

import ast
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fastapi_autumn.catalog._catalog import Catalog, kind_of
from fastapi_autumn.catalog._diff import diff, settled, with_untold
from fastapi_autumn.catalog._edits import Edits
from fastapi_autumn.catalog._layout import Expression, Node, flat, laid_out
from fastapi_autumn.catalog._model import Feature, Plan, Variant
from fastapi_autumn.catalog._names import Kind, variable_names
from fastapi_autumn.catalog._python import (
    POSITIONAL,
    PYTHON,
    References,
    builders_in,
    expression,
    import_line,
    in_order,
    quoted,
)
from fastapi_autumn.errors import CatalogError

__all__ = ["update_source"]

_BUILDERS = {"feature": "feature", "plan": "plan", "variant": "variant"}


def update_source(source: str, catalog: Catalog, path: Path | None = None) -> str:
    """The text of a catalog file, changed as little as needed to define `catalog`.

    Definitions that are the same stay as they are. In others only the differing arguments change, so that comments
    stay beside what they explain. What is new is appended to the features or plans; what is gone is removed.

    Args:
        source: the text now.
        catalog: what it should define.
        path: the file, for error messages and for what it imports from its directory.

    Raises:
        CatalogError: `source` does not run, or defines things in a way that cannot be updated, such as in a loop.
    """
    path = path or Path("autumn_config.py")
    now = Catalog.from_source(source, path)
    for whole in (False, True):
        updated = _Update(source, now, catalog, whole=whole).apply()
        try:
            result = Catalog.from_source(updated, path)
        except CatalogError:
            continue
        if not diff(result, catalog) and not diff(catalog, result):
            return updated
    raise CatalogError(
        f"{path} defines its catalog in a way that cannot be updated in place; write each feature and plan as "
        "a statement of its own, or start from a new file"
    )


_Place: TypeAlias = tuple[int, int]
"""Where something is defined: a line, and which of the definitions that are put after that line."""


@dataclass
class _Statement:
    """A statement at module level that defines something of the catalog."""

    node: ast.Assign | ast.AnnAssign
    value: ast.expr


class _Update:
    """One attempt: argument by argument, or, with `whole`, definition by definition."""

    def __init__(self, source: str, now: Catalog, wanted: Catalog, *, whole: bool) -> None:
        self._source, self._whole = source, whole
        self._now = settled(now)
        self._wanted = with_untold(settled(wanted), self._now)
        self._tree = ast.parse(source)
        self._edits = Edits(source)
        self._names = dict(now.names)
        self._statements = _statements(self._tree, now)
        self._written: set[str] = set()
        self._places: dict[tuple[Kind, str], _Place] = {}

    def apply(self) -> str:
        now = {(kind_of(one), one.id): one for one in in_order(self._now)}
        wanted = {(kind_of(one), one.id): one for one in in_order(self._wanted)}
        new = [one for key, one in wanted.items() if key not in now]
        self._place(wanted.keys(), new)
        for key in self._statements.keys() & now.keys():
            if key not in wanted:
                self._edits.remove_lines(self._statements[key].node)
            else:
                self._bring(self._statements[key], now[key], wanted[key])
        for one in new:
            self._append(one)
        self._import()
        return self._edits.apply()

    def _place(self, wanted: Collection[tuple[Kind, str]], new: Sequence[Feature | Plan | Variant]) -> None:
        """Decide names and places: new features go after the last one, plans and variants after the last of those."""
        self._names |= variable_names(((kind_of(one), one.id) for one in new), taken=_bound(self._tree))
        last_feature = self._last_line({"feature"}) or self._line_after_imports()
        last_plan = max(self._last_line({"plan", "variant"}), last_feature)
        for key, statement in self._statements.items():
            if key in wanted:
                self._places[key] = (statement.node.lineno, 0)
        for number, one in enumerate(new, start=1):
            self._places[kind_of(one), one.id] = (last_feature if isinstance(one, Feature) else last_plan, number)

    def _bring(self, statement: _Statement, now: Feature | Plan | Variant, wanted: Feature | Plan | Variant) -> None:
        reference = self._references((statement.node.lineno, 0))
        before, after = expression(now, reference), expression(wanted, reference)
        if flat(before) == flat(after):
            return
        if self._whole or _name_of(statement.value) != _BUILDERS[kind_of(wanted)]:
            self._put(statement.value, after)
        else:
            self._change(statement.value, before, after)

    def _references(self, place: _Place) -> References:
        """Refer to what is defined before `place` by its variable, and to all else by its id."""

        def reference(kind: Kind, id_: str) -> str:
            before = self._places.get((kind, id_), place) < place
            return self._names[kind, id_] if before else quoted(id_)

        return reference

    def _put(self, node: ast.expr, value: Expression) -> None:
        self._edits.replace(node, value)
        self._written |= builders_in(value)

    def _change(self, node: ast.expr, before: Expression, after: Expression) -> None:
        """Turn the source of `before` at `node` into that of `after`, as deep inside as possible."""
        if flat(before) == flat(after):
            return
        if isinstance(before, Node) and isinstance(after, Node) and before.opening == after.opening:
            if isinstance(node, ast.Call) and self._change_call(node, before, after):
                return
            if isinstance(node, ast.List) and self._change_list(node, before, after):
                return
        self._put(node, after)

    def _change_call(self, node: ast.Call, before: Node, after: Node) -> bool:
        """Change the arguments that differ; False where the call does not show them one by one."""
        if any(isinstance(arg, ast.Starred) for arg in node.args) or any(kw.arg is None for kw in node.keywords):
            return False
        positional = POSITIONAL.get(_name_of(node), ())
        present: dict[str, ast.expr | ast.keyword] = dict(zip(positional, node.args, strict=False))
        present |= {keyword.arg: keyword for keyword in node.keywords if keyword.arg}
        old, new = _arguments(before, positional), _arguments(after, positional)
        changed = [name for name in {**old, **new} if _text(old.get(name)) != _text(new.get(name))]
        if any(name in old and name not in present for name in changed):
            return False
        for name in changed:
            argument, becomes = present.get(name), new.get(name)
            if argument is not None and becomes is None:
                self._edits.remove(argument)
            elif argument is not None and becomes is not None:
                value = argument.value if isinstance(argument, ast.keyword) else argument
                self._change(value, old.get(name, ""), becomes)
        added = [(f"{name}=", new[name]) for name in changed if name not in present]
        self._add([*node.args, *node.keywords], node, added)
        return True

    def _change_list(self, node: ast.List, before: Node, after: Node) -> bool:
        """Change, remove and append entries; False where the list is not written out or its order changes."""
        old, new = _entries(before), _entries(after)
        kept = [key for key in old if key in new]
        if len(node.elts) != len(old) or not kept or [*new][: len(kept)] != kept:
            return False
        for element, (key, was) in zip(node.elts, old.items(), strict=True):
            if key in new:
                self._change(element, was, new[key])
            else:
                self._edits.remove(element)
        self._add(node.elts, node, [("", entry) for key, entry in new.items() if key not in old])
        return True

    def _add(
        self, present: Sequence[ast.expr | ast.keyword], parent: ast.expr, new: list[tuple[str, Expression]]
    ) -> None:
        """Put the `new` arguments or entries of `parent` after those that are `present`."""
        for _, entry in new:
            self._written |= builders_in(entry)
        if new:
            last = max(present, key=lambda one: (one.end_lineno or 0, one.end_col_offset or 0))
            self._edits.add(last, self._edits.end_of(parent), new)

    def _append(self, one: Feature | Plan | Variant) -> None:
        key = kind_of(one), one.id
        node = expression(one, self._references(self._places[key]))
        self._written |= builders_in(node)
        text = laid_out(node, PYTHON, prefix=f"{self._names[key]} = ")
        self._edits.insert_after(self._places[key][0], text + "\n")

    def _last_line(self, kinds: set[Kind]) -> int:
        lines = [one.node.end_lineno or 0 for (kind, _), one in self._statements.items() if kind in kinds]
        return max(lines, default=0)

    def _line_after_imports(self) -> int:
        """The last line of the docstring and the imports at the top."""
        line = 0
        for node in self._tree.body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not docstring and not isinstance(node, ast.Import | ast.ImportFrom):
                break
            line = node.end_lineno or line
        return line

    def _import(self) -> None:
        """Import the builders that the new source uses and the file does not import yet."""
        imports = [node for node in self._tree.body if isinstance(node, ast.ImportFrom)]
        imports = [node for node in imports if node.module == "fastapi_autumn.catalog" and node.level == 0]
        present = {alias.name for node in imports for alias in node.names if alias.asname in {None, alias.name}}
        missing = self._written - present
        if not missing or any(alias.name == "*" for node in imports for alias in node.names):
            return
        plain = [node for node in imports if all(alias.asname is None for alias in node.names)]
        if plain and "#" not in (ast.get_source_segment(self._source, plain[0]) or "#"):
            names = {alias.name for alias in plain[0].names}
            self._edits.replace_lines(plain[0], import_line(names | missing))
        else:
            self._edits.insert_after(self._line_after_imports(), import_line(missing) + "\n", first=True)


def _statements(tree: ast.Module, catalog: Catalog) -> dict[tuple[Kind, str], _Statement]:
    """The statement behind each (kind, id) that has one of its own."""
    found: dict[str, _Statement] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            found[target.id] = _Statement(node, node.value)
    return {key: found[name] for key, name in catalog.names.items() if name in found}


def _bound(tree: ast.Module) -> set[str]:
    """Every name that the source uses, imports or defines anywhere."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def _name_of(node: ast.expr) -> str:
    """The last part of what `node` calls; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _text(expression: Expression | None) -> str | None:
    return None if expression is None else flat(expression)


def _arguments(node: Node, positional: Iterable[str]) -> dict[str, Expression]:
    """The arguments of a call by name."""
    names = iter(positional)
    return {prefix.removesuffix("=") or next(names): entry for prefix, entry in node.entries}


def _entries(node: Node) -> dict[tuple[str, int], Expression]:
    """The entries of a list by what each is about (its first argument), counting repetitions."""
    keyed: dict[tuple[str, int], Expression] = {}
    for _, entry in node.entries:
        about = flat(entry.entries[0][1]) if isinstance(entry, Node) and entry.entries else flat(entry)
        number = 0
        while (about, number) in keyed:
            number += 1
        keyed[about, number] = entry
    return keyed
