"""What a push would do: the differences between file and Autumn, and what has to be decided before they can go."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Literal

from fastapi_autumn.catalog import Catalog, Change, FieldChange, diff
from fastapi_autumn.cli._backend import document
from fastapi_autumn.cli._catalog import read_remote
from fastapi_autumn.client import AutumnClient, Repeat
from fastapi_autumn.errors import UnexpectedAnswer

__all__ = ["MEANING", "Decision", "Intent", "Pending", "find_pending", "update_body"]

Intent = Literal[
    "create_version",
    "update_current",
    "update_current_and_migrate",
    "update_all_versions",
    "update_all_versions_and_migrate",
    "propagate",
    "skip",
]
"""What becomes of the customers of a plan that changes; `propagate` and `skip` are for a variant of it."""

MEANING: Mapping[Intent, str] = {
    "create_version": "customers keep what they have; new ones get the new version",
    "update_current": "customers get the change with the current version",
    "update_current_and_migrate": "the same, and a migration is drafted",
    "update_all_versions": "customers get the change, whichever version they are on",
    "update_all_versions_and_migrate": "the same, and a migration is drafted",
    "propagate": "the variant changes with its base",
    "skip": "nothing changes in Autumn; the rest is pushed",
}
"""What a decision means for the customers who have the plan."""

_ACTIONS: Mapping[str, Literal["create", "update", "delete"]] = {
    "create": "create",
    "created": "create",
    "update": "update",
    "updated": "update",
    "remove": "delete",
    "deleted": "delete",
}
_CURRENT: tuple[Intent, ...] = ("create_version", "update_current", "update_current_and_migrate", "skip")
_ALL: tuple[Intent, ...] = ("update_all_versions", "update_all_versions_and_migrate")


@dataclass(frozen=True)
class Decision:
    """A plan or variant for which only a person can say what to do, and what there is to choose from."""

    plan_id: str
    reason: str
    choices: tuple[Intent, ...]


@dataclass(frozen=True)
class Pending:
    """What a push would change.

    `notes` says more about a (kind, id), such as that it is archived because it is in use; `blocked` are changes that
    Autumn refuses.
    """

    changes: tuple[Change, ...]
    notes: Mapping[tuple[str, str], str]
    decisions: tuple[Decision, ...]
    blocked: tuple[str, ...]

    def without(self, plan_ids: AbstractSet[str]) -> tuple["Pending", list[Change]]:
        """What is left when these plans and variants stay as they are, and the changes that it leaves out."""
        left_out = [change for change in self.changes if change.kind != "feature" and change.id in plan_ids]
        kept = tuple(change for change in self.changes if change not in left_out)
        return replace(self, changes=kept), left_out

    @property
    def removals(self) -> list[str]:
        """What would be deleted or archived, in words."""
        return [f"{change.kind} {change.id}" for change in self.changes if change.action == "delete"]

    @property
    def archived(self) -> list[Change]:
        """What has to be brought back from the archive first."""
        return [
            change
            for change in self.changes
            if any(field.path == "archived" and field.before and not field.after for field in change.fields)
        ]

    def rows(self) -> list[list[Any]]:
        """A line for each change: the action, what it is about, and the fields."""
        return [
            [
                change.action,
                f"{change.kind} {change.id}",
                [*filter(None, [self.notes.get((change.kind, change.id))]), *map(_in_words, change.fields)],
            ]
            for change in self.changes
        ]


async def find_pending(client: AutumnClient, local: Catalog) -> Pending:
    """Compare `local` with what Autumn has, and ask it what the update would mean for customers."""
    operation = "catalog.preview_update"
    asking = client.call(operation, preview_body(local), repeat=Repeat.IDEMPOTENT)
    remote, preview = await asyncio.gather(read_remote(client), asking)
    try:
        return _pending(local, remote, document(preview, operation))
    except (AttributeError, KeyError, TypeError) as error:
        raise UnexpectedAnswer(operation, f"the answer has an unknown shape ({error!r})") from error


def preview_body(local: Catalog) -> dict[str, Any]:
    """The body of catalog.preview_update."""
    body = local.to_wire()
    for plan in body["plans"]:
        plan.update(include_versions=True, include_variants=True)
    return body


def update_body(local: Catalog, intents: Mapping[str, Intent], changes: Iterable[Change] = ()) -> dict[str, Any]:
    """The body of catalog.update, with what was decided, and emptied what the `changes` take away.

    Autumn leaves what a body does not name as it is, so that a description that is gone from the file would stay.
    """
    body = local.to_wire()
    for change in changes:
        if change.action == "update":
            _empty(body, change)
    skipped: list[str] = []
    for plan in body["plans"]:
        intent = intents.get(plan["plan_id"])
        if intent == "skip":
            skipped.append(plan["plan_id"])
        elif intent is not None:
            plan.update(_decided(intent))
        variants = plan.pop("variants", [])
        skipped += [variant["variant_plan_id"] for variant in variants]
        kept = [variant for variant in variants if intents.get(variant["variant_plan_id"]) != "skip"]
        if kept:
            plan["variants"] = [
                {**one, "force_version": True} if intents.get(one["variant_plan_id"]) == "create_version" else one
                for one in kept
            ]
    return {**body, "skip_plan_ids": skipped}


_EMPTY: Mapping[tuple[str, str], Any] = {
    ("feature", "event_names"): [],
    ("feature", "model_markups"): None,
    ("feature", "provider_markups"): None,
    ("feature", "default_markup"): 0,
    ("plan", "description"): "",
}
"""How Autumn is told that there is nothing: a markup has no other nothing than 0."""


def _empty(body: dict[str, Any], change: Change) -> None:
    listed = body["features"] if change.kind == "feature" else body["plans"]
    entry = next((one for one in listed if one.get(f"{change.kind}_id") == change.id), None)
    if entry is None:
        return
    for field in change.fields:
        if field.after is not None:
            continue
        if (change.kind, field.path) in _EMPTY:
            entry[field.path] = _EMPTY[change.kind, field.path]
        elif change.kind == "plan" and field.path == "billing_controls":
            entry[field.path] = {kind: [] for kind in field.before}
        elif change.kind == "plan" and field.path.startswith("billing_controls."):
            entry["billing_controls"].setdefault(field.path.split(".")[1], [])


def _decided(intent: Intent) -> dict[str, Any]:
    decided: dict[str, Any] = {}
    if intent.startswith("update_current"):
        decided["disable_version"] = True
    elif intent.startswith("update_all_versions"):
        decided["all_versions"] = True
    if intent.endswith("_and_migrate"):
        decided["migration"] = {"draft": True}
    return decided


def _pending(local: Catalog, remote: Catalog, preview: Mapping[str, Any]) -> Pending:
    found = {(change.kind, change.id): change for change in diff(local, remote)}
    notes: dict[tuple[str, str], str] = {}
    blocked: list[str] = []
    decisions: list[Decision] = []
    variants = {variant.id for variant in (*local.variants, *remote.variants)}
    archived = {("feature", one.id) for one in remote.features if one.archived}
    archived |= {("plan", one.id) for one in remote.plans if one.archived}
    archived |= {("variant", one.id) for one in remote.variants if one.archived}
    for key, change in _announced(preview, variants):
        # Autumn may see a change in what this package does not know; it is shown without its fields.
        will_archive = bool(change.get("will_archive"))
        if will_archive and key in archived:
            continue  # Autumn would archive once more what is in the archive.
        if action := _ACTIONS.get(change.get("action", "none")):
            found.setdefault(key, Change(action, *key))
        if will_archive:
            notes[key] = "archived and not deleted, because it is in use"
        if change.get("blocked") or change.get("action") == "conflict":
            blocked.append(f"{' '.join(key)}: {change.get('blocked_reason') or 'a conflict'}")
        decisions += _decisions(change)
    order = [*local.ids(), *found]
    changes = sorted(found.values(), key=lambda one: (one.action == "delete", order.index((one.kind, one.id))))
    return Pending(tuple(changes), notes, tuple(decisions), tuple(blocked))


def _announced(preview: Mapping[str, Any], variants: set[str]) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    for change in preview.get("feature_changes") or ():
        yield ("feature", change["feature_id"]), change
    for change in preview.get("plan_changes") or ():
        yield ("variant" if change["plan_id"] in variants else "plan", change["plan_id"]), change
    for kind in ("reward", "referral_program"):
        for change in preview.get(f"{kind}_changes") or ():
            yield (kind.replace("_", " "), change["id"]), change


def _decisions(change: Mapping[str, Any]) -> Iterator[Decision]:
    history = bool(change.get("other_versions"))
    if change.get("action") == "updated" and (change.get("versionable") or history):
        reason = "customers are on it" if change.get("versionable") else "it has earlier versions"
        yield Decision(change["plan_id"], reason, (*_CURRENT, *_ALL) if history else _CURRENT)
    for variant in change.get("variants") or ():
        if variant.get("update_source") == "propagated":
            yield Decision(variant["plan_id"], f"its base {change['plan_id']} changes", ("propagate", "skip"))
        elif variant.get("versionable"):
            yield Decision(variant["plan_id"], "customers are on it", ("create_version", "update_current"))


def _in_words(field: FieldChange) -> str:
    return f"{field.path}: {_value(field.before)} -> {_value(field.after)}"


def _value(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
