"""What users write type-checks, and what cannot work is refused, by mypy and by pyright, both strict."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.static

HERE = Path(__file__).parent
PROGRAMS = ["correct_use.py", "mistakes.py"]
# Each checker reads its own ignores only, and takes one that is not needed for an error.
PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": "error",
}


@pytest.fixture
def users_project(tmp_path: Path) -> Path:
    """A directory outside of this project, so that its settings do not count."""
    for name in PROGRAMS:
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return tmp_path


def check(project: Path, *command: str) -> str:
    """What the checker says; nothing but a summary when all is well."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=project, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def test_mypy_agrees(users_project: Path) -> None:
    """The package is typed for `mypy --strict`, without plugins."""
    assert check(users_project, "mypy", "--strict", *PROGRAMS) == "Success: no issues found in 2 source files"


def test_pyright_agrees(users_project: Path) -> None:
    """The package is typed for pyright's strict mode: no type is unknown where a user can see it."""
    said = check(users_project, "pyright", "--pythonpath", sys.executable)
    assert said.endswith("0 errors, 0 warnings, 0 informations"), said


def test_the_mistakes_are_many(users_project: Path) -> None:
    """Both checkers are asked to refuse each of the mistakes, so that none passes by not being looked at."""
    lines = (HERE / "mistakes.py").read_text().splitlines()
    refused = [line for line in lines if "# type: ignore[" in line]
    assert len(refused) > 20
    assert all("# pyright: ignore[" in line for line in refused)
