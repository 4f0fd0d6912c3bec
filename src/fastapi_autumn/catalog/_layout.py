"""Lay out nested calls, lists and objects as source text: on one line where it fits, else one entry a line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Expression", "Node", "Style", "flat", "laid_out", "nodes"]


@dataclass(frozen=True)
class Node:
    """Brackets with entries, each a prefix (`id=`, `"key": `, none) and what follows it.

    `padding` stands inside the brackets of a line; `expanded` asks for a line for each entry, however short.
    """

    opening: str
    closing: str
    entries: tuple[tuple[str, "Expression"], ...] = ()
    padding: str = ""
    expanded: bool = False


Expression: TypeAlias = str | Node


@dataclass(frozen=True)
class Style:
    """How wide a line may be, and what one level of indentation is and counts."""

    width: int
    indent: str
    indent_width: int


def laid_out(expression: Expression, style: Style, *, prefix: str = "", depth: int = 0) -> str:
    """`prefix` and `expression`, which start at `depth` levels of indentation; a comma or semicolon may follow."""
    line = prefix + flat(expression)
    if isinstance(expression, str) or not expression.entries:
        return line
    if not _forced(expression) and depth * style.indent_width + len(line) < style.width:
        return line
    inner = style.indent * (depth + 1)
    entries = "".join(
        f"{inner}{laid_out(entry, style, prefix=name, depth=depth + 1)},\n" for name, entry in expression.entries
    )
    return f"{prefix}{expression.opening}\n{entries}{style.indent * depth}{expression.closing}"


def nodes(expression: Expression) -> Iterator[Node]:
    """`expression` and all that is nested in it, without the plain texts."""
    if isinstance(expression, Node):
        yield expression
        for _, entry in expression.entries:
            yield from nodes(entry)


def flat(expression: Expression) -> str:
    """`expression` on one line."""
    if isinstance(expression, str):
        return expression
    if not expression.entries:
        return expression.opening + expression.closing
    inside = ", ".join(name + flat(entry) for name, entry in expression.entries)
    return f"{expression.opening}{expression.padding}{inside}{expression.padding}{expression.closing}"


def _forced(expression: Expression) -> bool:
    return any(node.expanded for node in nodes(expression))
