"""Write docs/api.md from the docstrings of what `from fastapi_autumn import ...` gives."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi_autumn

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
BEGIN, END = "<!-- begin: scripts/api_reference.py -->\n", "<!-- end -->\n"
ORDER = (
    "Autumn", "AutumnMiddleware", "ModelCharge", "CreditGate", "Charge", "charges_of", "Customer", "Balance",
    "ModelPrices", "AutumnSettings", "AutumnClient", "AutumnError", "RESPONSES",
)  # fmt: skip
# These have pages of their own; their members would only repeat them.
ALONE = {"AutumnSettings": "settings.md", "AutumnClient": "client.md", "AutumnError": "errors.md"}
CONSTANTS = {
    "ModelCharge": "`Annotated[Charge, Depends(CreditGate())]`: a charge for the model that the body names.",
    "RESPONSES": "What a gate may answer, for `responses=` of a route that is documented without `autumn.document`.",
}


def reference() -> str:
    """Return a section for each name."""
    names = [name for name in fastapi_autumn.__all__ if name != "__version__"]
    missing = set(names).symmetric_difference(ORDER)
    if missing:
        sys.exit(f"ORDER and the package differ in {', '.join(sorted(missing))}")
    return "\n".join(part for name in ORDER for part in _section(name))


def with_reference(page: str) -> str:
    """Return `page` with the reference between the two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + reference() + END + rest.split(END)[1]


def _section(name: str) -> Iterator[str]:
    yield f"## {name}\n"
    if name in CONSTANTS:
        yield f"{CONSTANTS[name]}\n"
        return
    value = getattr(fastapi_autumn, name)
    yield f"```python\n{_signature(name, value)}\n```\n".replace("```python", "```text")
    yield _prose(value)
    if name in ALONE:
        yield f"See [its own page]({ALONE[name]}).\n"
        return
    if not inspect.isclass(value):
        return
    for member, found in _members(value):
        text = f"property {member}" if isinstance(found, property) else _signature(f"{name}.{member}", found)
        # Whoever searches for a word wants the pages that explain it, and not one line of a docstring.
        yield f"### {name}.{member} {{ data-search-exclude }}\n"
        if not isinstance(found, property):
            yield f"```text\n{text}\n```\n"
        yield _prose(found)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for member, found in vars_of(kind).items():
        if not member.startswith("_") and inspect.getdoc(found) and (callable(found) or isinstance(found, property)):
            yield member, found


def vars_of(kind: type) -> dict[str, Any]:
    """Return what a class defines, and what it inherits from classes of this package."""
    members: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("fastapi_autumn"):
            members |= {name: getattr(kind, name) for name in vars(base) if not name.startswith("__")}
    return members


def _signature(name: str, value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    text = str(signature.replace(parameters=parameters))
    text = re.sub(r"<object object at 0x[0-9a-f]+>|<[^<>]* at 0x[0-9a-f]+>", "...", text)
    text = re.sub(
        r"\b(?:fastapi_autumn|collections\.abc|contextlib|decimal|starlette|typing|fastapi|httpx)(?:\.\w+)*\.(\w+)",
        r"\1",
        text,
    )
    text = re.sub(r"Annotated\[(\w+), PlainSerializer\(.*?mode=None\)\]", r"\1", text)  # an amount, in JSON a number
    text = re.sub(r"\*<class '?(\w+)'?>", r"Unpack[\1]", text)
    text = re.sub(r"Optional\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", r"\1 | None", text)  # Python 3.14 writes it so
    text = re.sub(r"'([A-Z][^']*)'", r"\1", text)  # a name that is written as a text, for cheap imports
    if len(name + text) <= 100:
        return name + text
    head, _, tail = text.rpartition(")")
    body = re.sub(r", (?=(?:\*{0,2}\w+:|\*, |\*\w))", ",\n    ", head[1:])
    return f"{name}(\n    {body},\n){tail}"


def _prose(value: Any) -> str:
    """Return a docstring as Markdown: its sections of arguments and errors become lists."""
    lines: list[str] = []
    listing = False
    for line in (inspect.getdoc(value) or "").splitlines():
        if line in {"Args:", "Raises:"}:
            listing = True
            lines += [f"**{'Arguments' if line == 'Args:' else 'Raises'}**", ""]
        elif listing and (match := re.match(r"    (\*{0,2}\w+): (.*)", line)):
            lines.append(f"- `{match[1]}`: {match[2]}")
        elif listing and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            listing = listing and not line.strip()
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is up to date\n")
