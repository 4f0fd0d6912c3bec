"""Write the table of settings in docs/settings.md from AutumnSettings, whose attribute docstrings are its texts."""

import ast
import inspect
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from fastapi_autumn import AutumnSettings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- begin: scripts/settings_reference.py -->\n", "<!-- end -->\n"
LIMITS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def table() -> str:
    """Return the table, a row for each setting in the order of their definition."""
    texts = _texts()
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, field in AutumnSettings.model_fields.items():
        text = " ".join(filter(None, [texts[name], _limits(field)]))
        rows.append(f"| `AUTUMN_{name.upper()}` | {_default(field)} | {text} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """Return `page` with the table between the two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def _texts() -> dict[str, str]:
    """What stands below each field; Python itself does not keep these strings."""
    (definition,) = ast.parse(inspect.getsource(AutumnSettings)).body
    pairs = zip(definition.body, definition.body[1:], strict=False)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _limits(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"One of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."
    limits = [
        f"{words} {getattr(mark, sign):g}"
        for mark in field.metadata
        for sign, words in LIMITS.items()
        if hasattr(mark, sign)
    ]
    return f"({', '.join(limits)})" if limits else ""


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is up to date\n")
