"""Type checkers refuse impossible items, each at its line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.static

DATA = Path(__file__).parent / "data"
POSSIBLE = [DATA / "possible_items.py", DATA / "pushed_config.py"]
IMPOSSIBLE = DATA / "impossible_items.py"


def marked_lines():
    """The lines that a type checker must refuse."""
    return [number for number, line in enumerate(IMPOSSIBLE.read_text().splitlines(), start=1) if "# wrong" in line]


def mypy(*paths):
    """The lines with errors, and all that mypy said."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return sorted({int(line) for line in re.findall(r":(\d+): error:", done.stdout)}), done.stdout


def pyright(*paths):
    """The lines with errors, and all that pyright said."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return sorted({one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}), done.stdout


@pytest.mark.parametrize("check", [mypy, pyright])
def test_impossible_items_are_refused_at_their_line(check):
    """Every line that is marked wrong is reported, and no other."""
    lines, output = check(IMPOSSIBLE)
    assert lines == marked_lines(), output


@pytest.mark.parametrize("check", [mypy, pyright])
def test_possible_items_are_accepted(check):
    """The three shapes, in all their forms, pass."""
    lines, output = check(*POSSIBLE)
    assert lines == [], output
