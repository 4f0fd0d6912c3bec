"""A push over another catalog settles: what the file no longer says is gone in Autumn, or archived there."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fastapi_autumn.catalog import Catalog, feature, plan
from fastapi_autumn.cli._pending import Pending, _pending, preview_body, update_body
from fastapi_autumn.emulator import ApiError, Emulator
from tests.catalog.strategies import catalogs


def pending(emulator: Emulator, catalog: Catalog) -> Pending:
    """What a push would find."""
    lists = [emulator.call(f"{kind}.list", {"include_archived": True})["list"] for kind in ("features", "plans")]
    return _pending(catalog, Catalog.from_wire(*lists), emulator.call("catalog.preview_update", preview_body(catalog)))


def push(emulator: Emulator, catalog: Catalog) -> None:
    """Do what the command does, in its order."""
    found = pending(emulator, catalog)
    for change in found.archived:
        kind = "feature" if change.kind == "feature" else "plan"
        emulator.call(f"{kind}s.update", {f"{kind}_id": change.id, "archived": False})
    emulator.call("catalog.update", update_body(catalog, {}, found.changes))
    changed = {change.id for change in found.changes if change.kind == "feature"}
    for one in catalog.features:
        if one.archived and one.id in changed:
            emulator.call("features.update", {"feature_id": one.id, "archived": True})


@given(first=catalogs(), second=catalogs(), has_customers=st.booleans())
def test_a_push_over_another_catalog_leaves_nothing_to_push(
    *, first: Catalog, second: Catalog, has_customers: bool
) -> None:
    """Whatever was there before, and whether or not customers have it: one push, and nothing differs."""
    emulator = Emulator(":memory:")
    push(emulator, first)
    if has_customers:
        emulator.call("customers.get_or_create", {"customer_id": "ann"})
        for one in (*first.plans, *first.variants):
            attached = {"customer_id": "ann", "plan_id": one.id, "no_billing_changes": True}
            try:
                emulator.call("billing.attach", attached)
            except ApiError as error:
                assert error.code == "plan_already_attached"  # noqa: PT017 - all others are attached
    push(emulator, second)
    assert pending(emulator, second).changes == ()
    emulator.close()


def test_what_the_file_no_longer_says_is_emptied() -> None:
    """Autumn keeps what a body does not name, so the body of the update names what goes."""
    messages = feature(id="messages", name="Messages", type="metered", consumable=True, event_names=["said"])
    tokens = feature(
        id="tokens", name="Tokens", type="ai_credit_system", default_markup=5, provider_markups={"openai": 5},
        model_markups={"a/b": 1},
    )  # fmt: skip
    limit = {"feature_id": "messages", "limit": 5, "interval": "day"}
    controls = {"usage_limits": [limit], "overage_allowed": [{"feature_id": "messages", "enabled": True}]}
    full = Catalog(
        (messages, tokens),
        (
            plan(id="all", name="All", description="Everything", billing_controls=controls),
            plan(id="some", name="Some", billing_controls=controls),
        ),
    )
    less = Catalog(
        (
            feature(id="messages", name="Messages", type="metered", consumable=True),
            feature(id="tokens", name="Tokens", type="ai_credit_system"),
        ),
        (
            plan(id="all", name="All"),
            plan(id="some", name="Some", billing_controls={"usage_limits": [limit]}),
        ),
    )
    emulator = Emulator(":memory:")
    push(emulator, full)
    body = update_body(less, {}, pending(emulator, less).changes)
    sent = {one.get("feature_id") or one["plan_id"]: one for one in (*body["features"], *body["plans"])}
    assert sent["messages"]["event_names"] == []
    assert (sent["tokens"]["default_markup"], sent["tokens"]["provider_markups"]) == (0, None)
    assert sent["tokens"]["model_markups"] is None
    assert sent["all"]["description"] == ""
    assert sent["all"]["billing_controls"] == {"usage_limits": [], "overage_allowed": []}
    assert sent["some"]["billing_controls"]["overage_allowed"] == []
    push(emulator, less)
    assert pending(emulator, less).changes == ()
    emulator.close()


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
