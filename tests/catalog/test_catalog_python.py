"""Catalogs as Python source: what is written loads as the same catalog."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from fastapi_autumn.catalog import Catalog, Variant, diff, render, render_types, validate
from fastapi_autumn.catalog._names import variable_names
from fastapi_autumn.catalog.templates import TEMPLATES
from tests.catalog.strategies import catalogs

FILE = Path("autumn_config.py")


@given(catalogs())
def test_what_is_written_loads_as_the_same_catalog(catalog):
    """Whatever ids, texts and numbers: the source runs, and defines exactly the catalog."""
    loaded = Catalog.from_source(render(catalog), FILE)
    assert diff(loaded, catalog) == diff(catalog, loaded) == []
    assert loaded.to_wire() == catalog.to_wire()
    assert loaded.variable_names() == catalog.variable_names()


@given(catalogs())
def test_generated_catalogs_validate(catalog):
    """The catalogs of the property tests are ones that Autumn would take, so nothing impossible is proven."""
    assert [
        problem for problem in validate(catalog) if problem.severity == "error" and "auto_enable" not in str(problem)
    ] == []


@pytest.mark.static  # Ruff is installed where types are checked, and nowhere else
def test_formatters_leave_the_file_alone(pulled, tmp_path):
    """The layout is that of Ruff with its defaults, so that a project's formatter changes nothing."""
    for name, text in {**TEMPLATES, "pulled": render(pulled), "types": render_types(pulled)}.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", "--diff", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_templates_load_validate_and_render_unchanged():
    """Each template is a catalog without a finding, and names its variables after the ids."""
    for name, text in TEMPLATES.items():
        catalog = Catalog.from_source(text, FILE)
        assert validate(catalog) == [], name
        assert diff(Catalog.from_source(render(catalog), FILE), catalog) == []
        assert list(catalog.names.values()) == [id_ for _, id_ in catalog.ids()]


def test_types_name_every_id(pulled):
    """Code can say `FeatureId` and `PlanId`; variants are plans; without any id the type is `Never`."""
    scope = {}
    exec(render_types(pulled), scope)  # noqa: S102 - the generated file, as an application imports it
    assert scope["PlanId"].__args__ == ("free", "pro", "top-up", "pro_annual")
    assert "messages" in scope["FeatureId"].__args__
    assert "PlanId = Never" in render_types(Catalog())


def test_variables_never_clash():
    """Ids that make the same name, keywords and the builders' own names all get a variable of their own."""
    ids = [("feature", "free"), ("plan", "free"), ("variant", "free"), ("plan", "top-up"), ("plan", "top_up")]
    ids += [("plan", "plan"), ("feature", "class"), ("feature", "1st"), ("plan", "--"), ("plan", "top up")]
    names = variable_names(ids)
    assert list(names.values()) == [
        *("free", "free_plan", "free_variant", "top_up", "top_up_plan"),
        *("plan_plan", "class_feature", "feature_1st", "plan_2", "top_up_2"),
    ]


def test_an_empty_catalog_is_a_file_that_loads():
    """Nothing to define is no error."""
    assert Catalog.from_source(render(Catalog()), FILE) == Catalog()


def test_a_variant_without_its_base_is_written_all_the_same():
    """A list may hold a variant alone; its definition names the base by id."""
    catalog = Catalog(variants=(Variant(base_plan_id="gone", id="v", name="V"),))
    assert Catalog.from_source(render(catalog), FILE) == catalog
