"""A push that makes something else of a feature."""

from pathlib import Path

from cli.test_push_settles import pending, push
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.emulator import Emulator

_BEFORE = 'feature(id="x", name="X", type="ai_credit_system", provider_markups={"mine": 5}, default_markup=3)'
_AFTER = 'feature(id="x", name="X", type="metered", consumable=True)'


def catalog_of(source: str) -> Catalog:
    return Catalog.from_source(f"from fastapi_autumn.catalog import feature\nx = {source}\n", Path("autumn_config.py"))


def test_markups_go_with_the_type_that_has_them() -> None:
    """A feature that is no AI credit system any more has no markups left to differ in."""
    emulator = Emulator(":memory:")
    push(emulator, catalog_of(_BEFORE))
    push(emulator, catalog_of(_AFTER))

    assert pending(emulator, catalog_of(_AFTER)).changes == ()
    emulator.close()
