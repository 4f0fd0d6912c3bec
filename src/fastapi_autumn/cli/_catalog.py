"""The two catalogs that commands compare: the file's and Autumn's."""

import asyncio
import re
from pathlib import Path
from typing import Any

from fastapi_autumn.catalog import Catalog, validate
from fastapi_autumn.cli._backend import document
from fastapi_autumn.cli._console import note
from fastapi_autumn.client import AutumnClient, Repeat
from fastapi_autumn.errors import CatalogError

__all__ = ["is_of_atmn_2", "load", "load_valid", "read_remote"]

_ATMN_2 = re.compile(r"export\s+default\s+atmn\s*\(|\bplanId\s*:")


def is_of_atmn_2(text: str) -> bool:
    """Whether an `autumn.config.ts` has the form of atmn 2, which refuses the one of atmn 1 that is written here."""
    return _ATMN_2.search(text) is not None


def load(path: Path) -> Catalog:
    """Run the catalog file.

    Raises:
        CatalogError: it is missing, or stopped with an error.
    """
    if not path.exists():
        raise CatalogError(
            f"There is no {path}; write one with autumn init, get Autumn's with autumn pull, or name yours with "
            "--config."
        )
    if path.suffix == ".ts":
        form = "atmn 2" if is_of_atmn_2(path.read_text(encoding="utf-8", errors="replace")) else "atmn 1"
        raise CatalogError(
            f"{path} is a catalog in TypeScript, in the form of {form}, and this command reads Python. Push it with "
            f"{form}; autumn pull then writes the same catalog as autumn_config.py."
        )
    return Catalog.load(path)


def load_valid(path: Path) -> Catalog:
    """As `load`, and say what Autumn would refuse in it; warnings are printed.

    Raises:
        CatalogError: with every problem on a line of its own.
    """
    catalog = load(path)
    problems = validate(catalog)
    for problem in problems:
        if problem.severity == "warning":
            note(f"Warning: {problem}")
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    if errors:
        count = f"{len(errors)} problems" if len(errors) > 1 else "a problem"
        raise CatalogError("\n  ".join([f"Autumn would refuse {path}, which has {count}:", *errors]))
    return catalog


async def read_remote(client: AutumnClient) -> Catalog:
    """Autumn's catalog, with what is archived there."""
    body = {"include_archived": True, "all_versions": False}
    features, plans = await asyncio.gather(_list(client, "features.list", {}), _list(client, "plans.list", body))
    return Catalog.from_wire(features, plans)


async def _list(client: AutumnClient, operation: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.call(operation, body, repeat=Repeat.IDEMPOTENT)
    found: list[dict[str, Any]] = document(answer, operation).get("list") or []
    return found
