"""Plans as code: what customers can have, written in Python and kept in step with Autumn."""

from fastapi_autumn.catalog._builders import customize, feature, item, item_filter, plan, plan_license
from fastapi_autumn.catalog._catalog import Catalog
from fastapi_autumn.catalog._diff import Change, FieldChange, diff
from fastapi_autumn.catalog._model import (
    BillingControls,
    Customize,
    Feature,
    FreeTrial,
    Item,
    ItemFilter,
    ItemPrice,
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
from fastapi_autumn.catalog._prices import price
from fastapi_autumn.catalog._python import render, render_types
from fastapi_autumn.catalog._typescript import render_typescript
from fastapi_autumn.catalog._update import update_source
from fastapi_autumn.catalog._validate import Problem, validate

__all__ = [
    "BillingControls",
    "Catalog",
    "Change",
    "Customize",
    "Feature",
    "FieldChange",
    "FreeTrial",
    "Item",
    "ItemFilter",
    "ItemPrice",
    "ModelMarkup",
    "Plan",
    "PlanLicense",
    "PlanPrice",
    "PrepaidPrice",
    "Problem",
    "Proration",
    "Reset",
    "ResetPrice",
    "Rollover",
    "Tier",
    "UsagePrice",
    "Variant",
    "customize",
    "diff",
    "feature",
    "item",
    "item_filter",
    "plan",
    "plan_license",
    "price",
    "render",
    "render_types",
    "render_typescript",
    "update_source",
    "validate",
]
