"""Write the table of operations in docs/client.md from the client itself and from Autumn's published contract.

`scripts/data/operations_2.3.0.json` is the contract in short: each operation of `openapi.json` with the fields of its
request.
"""

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi_autumn import AutumnClient, AutumnSettings, models

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "client.md"
CONTRACT = ROOT / "scripts" / "data" / "operations_2.3.0.json"
BEGIN, END = "<!-- begin: scripts/client_reference.py -->\n", "<!-- end -->\n"

REPEATS = {
    frozenset(["IDEMPOTENT"]): "after all but a time-out",
    frozenset(["IF_UNREACHED"]): "when nothing was sent",
    frozenset[str](): "when nothing was sent, or after a 429",
    frozenset(["IF_NOT_SENT", "IDEMPOTENT"]): "as a read; with an event or a lock, as `balances.track`",
}
SEVERAL_STEPS = ("balances.grant", "customers.confirm", "events.iterate")
# Parameters that become other fields than those of their name.
FIELDS = {
    "customer": ("customer_id", "name", "email", "fingerprint", "metadata"),
    "events": tuple(field.name for field in dataclasses.fields(models.TrackEvent)),
    "start": ("custom_range",),
    "end": ("custom_range",),
    "reset_count": ("reset",),
}
ALWAYS_SENT = {
    "billing.preview_attach": {"redirect_mode"},
    "billing.preview_update": {"redirect_mode"},
}


def contract() -> dict[str, list[str]]:
    """Return Autumn's operations, each with the fields of its request."""
    found: dict[str, list[str]] = json.loads(CONTRACT.read_text(encoding="utf-8"))
    return found


def methods() -> Iterator[tuple[str, Any]]:
    """Go through the methods of the client, by the names of their operations."""
    client = AutumnClient(AutumnSettings(_env_file=None), secret_key="am_sk_test_reference")
    groups = {name.partition(".")[0] for name in contract()}
    for group, operations in vars(client).items():
        if group in groups:
            for name, method in vars(type(operations)).items():
                if not name.startswith("_"):
                    yield f"{group}.{name}", method


def reference() -> str:
    """Return the tables."""
    known = contract()
    rows = ["| method | repeated | fields that are left to `call` |", "|---|---|---|"]
    covered = set()
    for operation, method in methods():
        if operation in known:
            covered.add(operation)
            left = sorted(set(known[operation]) - _sent(operation, method))
            rows.append(f"| `{operation}` | {_repeated(method)} | {_list(left)} |")
    rest = sorted(set(known) - covered)
    steps = "".join(f"- `{name}`: {_summary(dict(methods())[name])}\n" for name in SEVERAL_STEPS)
    return (
        "\n".join(rows)
        + f"\n\n{len(covered)} of {len(known)} operations have a method. Some methods take several steps, or less:\n\n"
        + steps
        + f"\nLeft to `call`: {_list(rest)}.\n"
    )


def with_reference(page: str) -> str:
    """Return `page` with the tables between the two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + reference() + END + rest.split(END)[1]


def _sent(operation: str, method: Any) -> set[str]:
    parameters = [name for name in inspect.signature(method).parameters if name not in {"self", "idempotency_key"}]
    return {field for name in parameters for field in FIELDS.get(name, (name,))} | ALWAYS_SENT.get(operation, set())


def _repeated(method: Any) -> str:
    """Read from the source after which failures a method repeats; what it says nothing about is the default."""
    source = inspect.getsource(method)
    home = inspect.getmodule(method)
    kind = getattr(home, method.__qualname__.partition(".")[0])
    for helper in re.findall(r"self\.(_\w+)\(", source):
        source += inspect.getsource(getattr(kind, helper))
    policies = frozenset(re.findall(r"Repeat\.(\w+)", source))
    return REPEATS[policies if len(policies) > 1 else policies - {"IF_NOT_SENT"}]


def _summary(method: Any) -> str:
    return str(inspect.getdoc(method)).partition("\n")[0]


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is up to date\n")
