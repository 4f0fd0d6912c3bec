"""A push settles: afterwards there is nothing left to push."""

from hypothesis import given

from fastapi_autumn.catalog import Catalog, diff
from fastapi_autumn.emulator import Emulator
from tests.catalog.strategies import catalogs


def pushed(catalog):
    """Push to an empty emulator, and read back what it lists; what it previews of the same push afterwards."""
    emulator = Emulator(":memory:")
    emulator.call("catalog.update", catalog.to_wire())
    for archived in (feature for feature in catalog.features if feature.archived):
        emulator.call("features.update", {"feature_id": archived.id, "archived": True})
    lists = [emulator.call(f"{kind}.list", {"include_archived": True})["list"] for kind in ("features", "plans")]
    preview = emulator.call("catalog.preview_update", catalog.to_wire())
    emulator.close()
    return Catalog.from_wire(*lists), preview


@given(catalogs())
def test_after_a_push_nothing_differs(catalog):
    """Whatever a catalog says, in every field that the builders have: the difference is gone once it is pushed."""
    listed, preview = pushed(catalog)
    assert diff(catalog, listed) == []
    assert diff(listed, catalog) == []
    changes = [*preview["feature_changes"], *preview["plan_changes"]]
    assert {change["action"] for change in changes} <= {"none"}
    assert {variant["action"] for change in preview["plan_changes"] for variant in change["variants"]} <= {"none"}
