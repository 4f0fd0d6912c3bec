"""plans.*: what customers can have."""

from __future__ import annotations

from typing import Any

from fastapi_autumn.emulator._errors import ApiError
from fastapi_autumn.emulator.catalog import _plans
from fastapi_autumn.emulator.http._call import Call, Operation


def create(call: Call) -> Any:
    """Make a plan; 400 if its id is taken."""
    fields = call.fields()
    plan_id = fields.text("plan_id")
    fields.string("name", required=True)
    fields.check()
    if plan_id in call.catalog.plans:
        raise ApiError(400, "product_already_exists", f"Product {plan_id} already exists")
    plan = _plans.read_plan(fields, call.catalog, now=call.now) | {"id": plan_id}
    _plans.keep_plan(call.store, plan, new=True)
    return plan


def get(call: Call) -> Any:
    """Return one plan, in its newest version or the one asked for."""
    fields = call.fields()
    plan_id, version = fields.text("plan_id"), fields.integer("version")
    fields.check()
    return call.catalog.plan(plan_id, version)


def list_(call: Call) -> Any:
    """List the plans; with `all_versions` every version of each, in the order in which they were made."""
    fields = call.fields()
    archived, all_versions = fields.boolean("include_archived"), fields.boolean("all_versions")
    fields.check()
    if all_versions:
        plans = [plan for versions in call.catalog.versions.values() for plan in reversed(versions)]
    else:
        plans = call.catalog.sorted_plans()
    return {"list": [plan for plan in plans if archived or not plan["archived"]]}


def update(call: Call) -> Any:
    """Change a plan; a new version if customers have it and more than its name changes."""
    fields = call.fields()
    fields.text("plan_id")
    fields.check()
    return _plans.update_plan(call.store, call.catalog, fields, now=call.now)


def update_by_path(call: Call) -> Any:
    """Change a plan by `POST /v1/products/{id}`, as the CLI does to bring one back from the archive."""
    call.body = {**(call.body if isinstance(call.body, dict) else {}), "plan_id": call.path["id"]}
    return update(call)


def delete(call: Call) -> Any:
    """Delete a plan that no customer has or had."""
    plan_id = call.path.get("id")
    if plan_id is not None:
        all_versions = call.query.get("all_versions") == "true"
    else:
        fields = call.fields()
        plan_id, all_versions = fields.text("plan_id"), fields.boolean("all_versions")
        fields.check()
    _plans.delete_plan(call.store, call.catalog, plan_id, all_versions=all_versions)
    return {"success": True}


ROUTES = {
    ("POST", "/v1/plans.create"): Operation("plans.create", create),
    ("POST", "/v1/plans.get"): Operation("plans.get", get, writes=False),
    ("POST", "/v1/plans.list"): Operation("plans.list", list_, writes=False),
    ("GET", "/v1/products"): Operation("plans.list", list_, writes=False),
    ("POST", "/v1/plans.update"): Operation("plans.update", update),
    ("POST", "/v1/plans.delete"): Operation("plans.delete", delete),
    ("POST", "/v1/products/{id}"): Operation("plans.update", update_by_path),
    ("DELETE", "/v1/products/{id}"): Operation("plans.delete", delete),
}
