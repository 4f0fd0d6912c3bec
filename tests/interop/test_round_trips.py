"""The two command lines side by side: what one pushed is what the other pulls, and they push the same bodies."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.processes import Server, clean_environment
from fastapi_autumn.catalog import Catalog, diff
from interop.clients import Atmn
from interop.conftest import CATALOG_DATA, DATA

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


class AutumnCommand:
    """This package's command, in a folder of its own."""

    def __init__(self, folder: Path, server: Server) -> None:
        folder.mkdir()
        self.config = folder / "autumn_config.py"
        self._environment = clean_environment(folder) | server.environment

    def __call__(self, *arguments: str) -> str:
        """Run it and return what it says; it has to succeed."""
        command = [sys.executable, "-m", "fastapi_autumn.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.config.parent, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def autumn(tmp_path: Path, server: Server) -> AutumnCommand:
    return AutumnCommand(tmp_path / "python", server)


def _bodies(server: Server) -> dict[str, Any]:
    """The preview and the update that were sent, each exactly once."""
    (preview,), (update,) = (server.sent(f"/v1/catalog.{what}") for what in ("preview_update", "update"))
    server.requests.clear()
    return {"preview": preview, "update": update}


def test_both_push_the_same_bodies(atmn: Atmn, config: Path, autumn: AutumnCommand, server: Server) -> None:
    """The same catalog in TypeScript and in Python goes over the wire as the same preview and the same update."""
    shutil.copy(CATALOG_DATA / "pushed_config.py", autumn.config)

    assert atmn("push", "--yes").returncode == 0
    theirs = _bodies(server)
    server.call("/emulator/reset")
    autumn("push", "--yes")

    assert _bodies(server) == theirs


def test_autumn_pulls_what_atmn_pushed(atmn: Atmn, config: Path, autumn: AutumnCommand, server: Server) -> None:
    """A new file has the catalog that was pushed, and a file that has it already is not touched."""
    assert atmn("push", "--yes").returncode == 0

    autumn("pull")
    pulled = Catalog.load(autumn.config)
    shutil.copy(CATALOG_DATA / "pushed_config.py", autumn.config)
    said = autumn("pull")

    assert not diff(pulled, Catalog.load(CATALOG_DATA / "pushed_config.py"))
    assert "autumn_config.py is in step." in said
    assert autumn.config.read_text() == (CATALOG_DATA / "pushed_config.py").read_text()


@pytest.mark.parametrize(
    "source", [CATALOG_DATA / "pushed_config.py", DATA / "rich_config.py"], ids=lambda path: path.stem
)
def test_atmn_pulls_what_autumn_pushed(atmn: Atmn, autumn: AutumnCommand, server: Server, source: Path) -> None:
    """The file that atmn writes is the catalog that was pushed: atmn finds nothing to push, and sends the same body."""
    shutil.copy(source, autumn.config)
    autumn("push", "--yes")
    ours = _bodies(server)["preview"]

    pulled = atmn("pull")
    pushed = atmn("push", "--yes")

    assert pulled.returncode == 0, pulled.stderr
    assert pushed.stdout.endswith("\nAlready in sync - no changes to push.\n"), pushed.stdout + pushed.stderr
    (theirs,) = server.sent("/v1/catalog.preview_update")
    assert not diff(*(Catalog.from_wire(body["features"], body["plans"]) for body in (ours, theirs)))


@pytest.mark.parametrize(
    "source", [CATALOG_DATA / "pushed_config.py", DATA / "rich_config.py"], ids=lambda path: path.stem
)
def test_both_write_the_same_typescript(atmn: Atmn, autumn: AutumnCommand, server: Server, source: Path) -> None:
    """`autumn pull --ts` writes the file that `atmn pull` writes, to the letter."""
    shutil.copy(source, autumn.config)
    autumn("push", "--yes")

    assert atmn("pull").returncode == 0
    autumn("pull", "--ts")

    assert autumn.config.with_name("autumn.config.ts").read_text() == atmn.config.read_text()
