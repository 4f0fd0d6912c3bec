"""What the tests of catalogs share: recorded lists and bodies, and strategies that make catalogs."""

import json
from pathlib import Path

import pytest

from fastapi_autumn.catalog import Catalog

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def pushed_body():
    """What the official command line sent for `data/pushed_config.py` in TypeScript."""
    return json.loads((DATA / "pushed_body.json").read_text())


@pytest.fixture(scope="session")
def pushed():
    """The catalog behind `pushed_body`."""
    return Catalog.load(DATA / "pushed_config.py")


@pytest.fixture(scope="session")
def pulled_lists():
    """Lists that the official command line pulled, and what it pushed afterwards."""
    return json.loads((DATA / "pulled_lists.json").read_text())


@pytest.fixture(scope="session")
def pulled(pulled_lists):
    """The catalog behind `pulled_lists`."""
    return Catalog.from_wire(pulled_lists["features"], pulled_lists["plans"])


@pytest.fixture
def run(tmp_path):
    """Run the source of a catalog file."""

    def run_source(source):
        return Catalog.from_source(source, tmp_path / "autumn_config.py")

    return run_source


@pytest.fixture(scope="session")
def server_lists():
    """What the server listed after the official command line had pushed `pushed`."""
    return json.loads((DATA / "server_lists.json").read_text())
