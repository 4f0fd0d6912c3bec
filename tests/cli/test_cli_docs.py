"""docs/cli.md is what the command says."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from fastapi_autumn.cli._app import COMMANDS

pytestmark = pytest.mark.docs

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_reference_is_what_help_prints() -> None:
    """Every command is in it, and no word of it is old."""
    spec = importlib.util.spec_from_file_location("cli_reference", _ROOT / "scripts" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.with_reference(_PAGE) == _PAGE, "run scripts/cli_reference.py"
    assert re.findall(r"^### autumn (\w+)(?: \{.*\})?$", _PAGE, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize(
    "example",
    sorted(set(re.findall(r"^ *(autumn [a-z]+(?: +[^\s#>]+)*)", _PAGE, re.MULTILINE))),
)
def test_the_options_of_every_example_exist(example: str) -> None:
    """An example on the page or in a help text uses commands and options that the reference lists."""
    words = shlex.split(example)[1:]
    name = " ".join(words[:2]) if words[0] in {"refunds", "emulator"} and len(words) > 1 else words[0]
    section = re.search(rf"^#+ autumn {name}(?: \{{[^}}]*\}})?\n\n```text\n(.*?)^```", _PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None, f"there is no command {name}"
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(^|[\s,/]){word}\b", section[1], re.MULTILINE), f"{name} has no {word}"


def test_the_page_lists_every_intent() -> None:
    """What can be decided about a plan is explained."""
    from typing import get_args

    from fastapi_autumn.cli._pending import Intent

    for intent in get_args(Intent):
        assert f"`{intent}`" in _PAGE
