"""Changes to Python source that leave everything else in it, comments above all, as it is."""

import ast
import re
from collections.abc import Sequence

from fastapi_autumn.catalog._layout import Expression, flat, laid_out
from fastapi_autumn.catalog._python import PYTHON

__all__ = ["Edits"]

_COMMA = re.compile(rb"(?:\s|#[^\n]*\n)*,")


class Edits:
    """Collects replacements in `source` by the positions of its syntax tree, and makes them all at once."""

    def __init__(self, source: str) -> None:
        self._source = source.encode()  # the columns of a syntax tree count bytes
        self._starts = [0]
        for line in self._source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._changes: list[tuple[int, int, str]] = []

    def apply(self) -> str:
        """The source with all changes made."""
        result, position = b"", 0
        # A stable sort: what is inserted at one place stays in the order in which it was asked for.
        for start, end, text in sorted(self._changes, key=lambda change: change[:2]):
            result += self._source[position:start] + text.encode()
            position = max(position, end)
        return (result + self._source[position:]).decode()

    def replace(self, node: ast.expr, value: Expression) -> None:
        """Put `value` in the place of `node`, laid out for where it starts."""
        start, end = self._span(node)
        line = self._line_start(start)
        before = self._source[line:start].decode()
        indent = before[: len(before) - len(before.lstrip())]
        prefix = before[len(indent) :]
        text = laid_out(value, PYTHON, prefix=prefix, depth=len(indent) // PYTHON.indent_width)
        self._changes.append((start, end, text.removeprefix(prefix)))

    def insert_after(self, line: int, text: str, *, first: bool = False) -> None:
        """Put `text` on lines of its own after line number `line` (0: before all), `first` of what is put there."""
        position = self._starts[line]
        separate = position and self._source[position - 1 : position] != b"\n"
        change = (position, position, "\n" + text if separate else text)
        self._changes.insert(0 if first else len(self._changes), change)

    def remove_lines(self, node: ast.stmt) -> None:
        """Take a statement out with its lines, or by itself where other statements share them."""
        start, end = self._span(node)
        line = self._line_start(start)
        rest = self._source.find(b"\n", end)
        rest = len(self._source) if rest < 0 else rest
        before, after = self._source[line:start].strip(), self._source[end:rest].lstrip()
        if after[:1] == b";" and after[1:].strip():
            # What follows moves to its place.
            self._changes.append((start, rest - len(after[1:].lstrip()), ""))
        elif before:
            self._changes.append((line + len(self._source[line:start].rstrip(b" ;")), end, ""))
        else:
            self._changes.append((self._starts[node.lineno - 1], self._starts[node.end_lineno or node.lineno], ""))

    def replace_lines(self, node: ast.stmt, text: str) -> None:
        """Put `text` in the place of a statement."""
        self._changes.append((*self._span(node), text))

    def remove(self, node: ast.expr | ast.keyword) -> None:
        """Take an argument or entry out with its comma, and with its line and the comment there if it has its own."""
        start, end = self._span(node)
        comma = _COMMA.match(self._source, end)
        after = comma.end() if comma else end
        line, rest = self._line_start(start), self._source.find(b"\n", after)
        alone = not self._source[line:start].strip() and self._source[after:rest].strip()[:1] in {b"", b"#"}
        if alone and rest >= 0:
            self._changes.append((line, rest + 1, ""))
        elif comma:
            blanks = len(self._source[after:]) - len(self._source[after:].lstrip(b" "))
            self._changes.append((start, after + blanks, ""))
        else:  # the last one: the comma before it goes
            before = self._source[:start].rstrip()
            self._changes.append((len(before.removesuffix(b",")), end, ""))

    def add(self, last: ast.expr | ast.keyword, bracket: int, entries: Sequence[tuple[str, Expression]]) -> None:
        """Put `entries` after `last`, before the closing bracket that ends at position `bracket`."""
        start, end = self._span(last)
        closing = self._line_start(bracket - 1)
        if closing <= end:  # on the line of `last`
            self._changes.append((end, end, "".join(f", {prefix}{flat(entry)}" for prefix, entry in entries)))
            return
        if not _COMMA.match(self._source, end):
            self._changes.append((end, end, ","))
        line = self._line_start(start)
        indent = self._source[line : line + len(self._source[line:]) - len(self._source[line:].lstrip(b" "))].decode()
        depth = len(indent) // PYTHON.indent_width
        text = "".join(f"{indent}{laid_out(entry, PYTHON, prefix=name, depth=depth)},\n" for name, entry in entries)
        self._changes.append((closing, closing, text))

    def end_of(self, node: ast.expr) -> int:
        """The position behind `node`."""
        return self._span(node)[1]

    def _span(self, node: ast.expr | ast.keyword | ast.stmt) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[end_line - 1] + end_column

    def _line_start(self, position: int) -> int:
        return self._source.rfind(b"\n", 0, position) + 1
