"""The catalog as a whole: the features and plans of a file, or of an Autumn organisation."""

import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from fastapi_autumn.catalog._model import Feature, Plan, Variant
from fastapi_autumn.catalog._names import Kind, camel_case, variable_names
from fastapi_autumn.catalog._wire import (
    feature_from_wire,
    feature_to_wire,
    plan_from_wire,
    plan_to_wire,
    variant_from_wire,
)
from fastapi_autumn.errors import CatalogError

__all__ = ["Catalog", "kind_of"]

_MODULE = "autumn_config"


def kind_of(one: Feature | Plan | Variant) -> Kind:
    """What `one` is, in a word."""
    return "feature" if isinstance(one, Feature) else "plan" if isinstance(one, Plan) else "variant"


@dataclass(frozen=True)
class Catalog:
    """Features, plans and variants, each in the order in which they were defined or listed.

    `names` holds the variable behind each (kind, id) of a catalog that came from a file, `file` that file.
    """

    features: tuple[Feature, ...] = ()
    plans: tuple[Plan, ...] = ()
    variants: tuple[Variant, ...] = ()
    names: Mapping[tuple[Kind, str], str] = field(default_factory=dict, compare=False)
    file: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Run a catalog file and collect what its module level defines.

        A catalog is code: load only files that you would run.

        Raises:
            CatalogError: the file is missing, or stopped with an error; names the file and the line.
        """
        path = Path(path)
        try:
            source = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CatalogError(f"cannot read the catalog {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise CatalogError(f"{path}: not UTF-8; save the file as UTF-8") from error
        return cls.from_source(source, path)

    @classmethod
    def from_source(cls, source: str, path: Path) -> Self:
        """As `load`, for `source` in the place of what is in the file at `path`."""
        names: dict[tuple[Kind, str], str] = {}
        objects: dict[int, Feature | Plan | Variant] = {}
        for name, value in _run(source, path).items():
            if isinstance(value, Feature | Plan | Variant):
                objects[id(value)] = value
                names.setdefault((kind_of(value), value.id), name)
        return replace(cls._of(objects.values()), names=names, file=path)

    @classmethod
    def from_wire(cls, features: Iterable[Mapping[str, Any]], plans: Iterable[Mapping[str, Any]]) -> Self:
        """Read what `features.list` and `plans.list` answer, or the two lists of a catalog update.

        Raises:
            CatalogError: the lists do not have the documented shape.
        """
        objects: list[Feature | Plan | Variant] = []
        try:
            objects += (feature_from_wire(wire) for wire in features)
            for wire in plans:
                if wire.get("variant_details"):
                    objects.append(variant_from_wire(wire, wire["variant_details"]["base_plan_id"]))
                    continue
                base = plan_from_wire(wire)
                objects += [base, *(variant_from_wire(entry, base.id) for entry in wire.get("variants") or ())]
        except (KeyError, TypeError, AttributeError) as error:
            raise CatalogError(f"the catalog that Autumn answered has an unknown shape: {error!r}") from error
        return cls._of(objects)

    @classmethod
    def _of(cls, objects: Iterable[Feature | Plan | Variant]) -> Self:
        objects = list(objects)
        return cls(
            tuple(one for one in objects if isinstance(one, Feature)),
            tuple(one for one in objects if isinstance(one, Plan)),
            tuple(one for one in objects if isinstance(one, Variant)),
        )

    def variable_names(self) -> dict[tuple[Kind, str], str]:
        """The variable of everything in the catalog: as in its file, else made from the id."""
        known = {key: self.names[key] for key in self.ids() if key in self.names}
        others = (key for key in self.ids() if key not in known)
        return known | variable_names(others, taken=known.values())

    def ids(self) -> list[tuple[Kind, str]]:
        """The (kind, id) of everything in the catalog."""
        everything: tuple[Feature | Plan | Variant, ...] = (*self.features, *self.plans, *self.variants)
        return [(kind_of(one), one.id) for one in everything]

    def variants_of(self, plan_id: str) -> list[Variant]:
        """The variants of a plan."""
        return [variant for variant in self.variants if variant.base_plan_id == plan_id]

    def to_wire(self) -> dict[str, Any]:
        """The body of a catalog update that makes Autumn's catalog this one, as the official command line sends it.

        It is a full replacement: Autumn removes, or archives, the features and plans that are not in it. Entries are
        in the order of their variables in camelCase, credit systems after the features that they count.
        """
        names = self.variable_names()
        features = sorted(self.features, key=lambda one: camel_case(names["feature", one.id]))
        features.sort(key=lambda one: one.type == "credit_system")
        plans = sorted(self.plans, key=lambda one: camel_case(names["plan", one.id]))
        return {
            "features": [feature_to_wire(one) for one in features],
            "plans": [plan_to_wire(one, self.variants_of(one.id)) for one in plans],
            "rewards": [],
            "referral_programs": [],
            "skip_deletions": False,
            "skip_feature_ids": [],
            "skip_plan_ids": [variant.id for plan in plans for variant in self.variants_of(plan.id)],
        }


def _run(source: str, path: Path) -> dict[str, Any]:
    """The module level of a catalog file, after running it as a module of its own name beside its neighbours."""
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    before = sys.modules.get(_MODULE)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - a catalog is the user's own code
    except SyntaxError as error:
        raise CatalogError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:  # whatever the user's code raises, the answer is its line and the reason
        raise CatalogError(f"{_place(error, path)}: {_reason(error)}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
        sys.modules.pop(_MODULE)
        if before is not None:
            sys.modules[_MODULE] = before
    return module.__dict__


def _place(error: BaseException, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _reason(error: BaseException) -> str:
    if isinstance(error, CatalogError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    # A wrong keyword is the commonest mistake, and the message names the function, not what it accepts.
    wrong = re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", text)
    return f"{wrong[1]}() has no argument {wrong[2]!r}; see its documentation" if wrong else text
