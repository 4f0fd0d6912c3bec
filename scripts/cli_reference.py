"""Write the reference in docs/cli.md from `--help` of every command."""

from pathlib import Path

from typer.testing import CliRunner

from fastapi_autumn.cli._app import COMMANDS, app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
BEGIN, END = "<!-- begin: scripts/cli_reference.py -->\n", "<!-- end -->\n"


def reference() -> str:
    """Return a section for each command, and one for each command of a group."""
    sections = [_section(name) for name in COMMANDS]
    return "\n".join(sections)


def with_reference(page: str) -> str:
    """Return `page` with the reference between the two marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + reference() + END + rest.split(END)[1]


def _section(*names: str) -> str:
    """The help of a command as it prints it in a terminal of 80 columns."""
    result = CliRunner().invoke(app, [*names, "--help"], prog_name="autumn", env={"COLUMNS": "80"})
    command = " ".join(["autumn", *names])
    commands = result.output.partition("\nCommands:\n")[2].partition("\n\n")[0]
    # A line that goes on with its description is indented further than a name.
    below = [line.split()[0] for line in commands.splitlines() if line[2:3].strip()]
    # Whoever searches for a word wants the pages that explain it, not a group of commands.
    hidden = " { data-search-exclude }" if len(names) > 1 or below else ""
    text = f"{'##' + '#' * len(names)} {command}{hidden}\n\n```text\n{result.output.strip()}\n```\n"
    return "\n".join([text, *(_section(*names, name) for name in below)])


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
