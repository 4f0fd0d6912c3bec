"""`autumn pull`."""

from pathlib import Path

import pytest

from cli.processes import CATALOG, Run, Server
from fastapi_autumn.catalog import Catalog, diff


@pytest.fixture
def pushed(remote: Run, catalog_file: Path) -> Catalog:
    """Autumn has the catalog of the file."""
    assert remote("push", "--yes").returncode == 0
    return Catalog.load(catalog_file)


def test_a_pull_into_nothing_writes_file_and_types(pushed: Catalog, remote: Run, catalog_file: Path) -> None:
    """The new file defines what Autumn has."""
    catalog_file.unlink()
    result = remote("pull")
    assert result.returncode == 0
    assert result.stdout == "Wrote autumn_config.py.\nWrote autumn_types.py.\n"
    assert diff(Catalog.load(catalog_file), pushed) == []
    types = catalog_file.with_name("autumn_types.py").read_text()
    assert 'PlanId = Literal["free", "pro"]' in types


def test_a_pull_of_what_is_in_step_touches_nothing(pushed: Catalog, remote: Run, catalog_file: Path) -> None:
    """Not even the time of the file changes, so nothing is built anew."""
    remote("pull")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in catalog_file.parent.glob("*.py")}
    result = remote("pull")
    assert result.stdout == "autumn_config.py is in step.\nautumn_types.py is in step.\n"
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in catalog_file.parent.glob("*.py")} == before


def test_a_change_keeps_comments_and_names(pushed: Catalog, remote: Run, server: Server, catalog_file: Path) -> None:
    """Only what changed in Autumn changes in the file, and the command says what that was."""
    before = catalog_file.read_text()
    server.call("/v1/plans.update", {"plan_id": "pro", "price": {"amount": 25, "interval": "month"}})
    result = remote("pull")
    assert "  update plan pro\n" in result.stdout
    assert catalog_file.read_text() == before.replace("price(20,", "price(25,")


def test_force_writes_the_file_anew(pushed: Catalog, remote: Run, catalog_file: Path) -> None:
    """The comment goes, as asked for."""
    assert remote("pull", "--force").returncode == 0
    assert "# The one that pays." not in catalog_file.read_text()
    assert diff(Catalog.load(catalog_file), pushed) == []


def test_ts_writes_the_file_of_the_official_command_line(pushed: Catalog, remote: Run, catalog_file: Path) -> None:
    """The Python file is left alone."""
    before = catalog_file.read_text()
    assert remote("pull", "--ts").stdout == "Wrote autumn.config.ts.\n"
    written = catalog_file.with_name("autumn.config.ts").read_text()
    assert written.startswith("import { feature, item, plan } from 'atmn';\n")
    assert "export const pro = plan({" in written
    assert catalog_file.read_text() == before


def test_a_failed_read_leaves_the_file_alone(pushed: Catalog, remote: Run, server: Server, catalog_file: Path) -> None:
    """Half a catalog is not written."""
    before = catalog_file.read_text()
    server.fault("plans.list", kind="fail", status=500)
    result = remote("pull")
    assert result.returncode == 1
    assert catalog_file.read_text() == before
    assert not catalog_file.with_name("autumn_types.py").exists()


def test_a_pull_with_another_name_writes_the_types_beside_it(pushed: Catalog, remote: Run, here: Path) -> None:
    """Both files belong together."""
    here.joinpath("billing").mkdir()
    assert remote("pull", "--config", "billing/catalog.py").returncode == 0
    assert sorted(path.name for path in here.joinpath("billing").iterdir()) == ["autumn_types.py", "catalog.py"]


def test_line_ends_stay(pushed: Catalog, remote: Run, server: Server, catalog_file: Path) -> None:
    """A file with the line ends of Windows keeps them."""
    catalog_file.write_bytes(catalog_file.read_bytes().replace(b"\n", b"\r\n"))
    server.call("/v1/plans.update", {"plan_id": "free", "name": "Gratis"})
    assert remote("pull").returncode == 0
    written = catalog_file.read_bytes()
    assert b"Gratis" in written
    assert written.count(b"\n") == written.count(b"\r\n")


def test_somebody_elses_types_are_not_replaced(pushed: Catalog, remote: Run, catalog_file: Path) -> None:
    """A file of that name that pull did not write is left alone, and nothing else is written; --force replaces it."""
    types = catalog_file.with_name("autumn_types.py")
    types.write_text("class Mine: ...\n")
    before = catalog_file.read_text()
    refused = remote("pull")
    assert refused.returncode == 1
    assert "was not written by autumn pull" in refused.stderr
    assert (types.read_text(), catalog_file.read_text()) == ("class Mine: ...\n", before)
    assert remote("pull", "--force").returncode == 0
    assert "Literal" in types.read_text()


def test_typescript_has_words_that_cannot_be_variables(remote: Run, catalog_file: Path) -> None:
    """A feature may be called `default`, a variable may not."""
    catalog_file.write_text(CATALOG + 'switch = feature(id="default", name="Switch", type="boolean")\n')
    remote("push", "--yes")
    assert remote("pull", "--ts").returncode == 0
    assert "export const defaultFeature = feature({" in catalog_file.with_name("autumn.config.ts").read_text()


def test_an_empty_autumn_does_not_empty_the_file(remote: Run, catalog_file: Path) -> None:
    """Another organisation's key, or a new one, would take everything out: it asks first, and asks for --yes."""
    before = catalog_file.read_text()
    refused = remote("pull")
    assert refused.returncode == 3
    assert "Autumn's catalog is empty" in refused.stderr
    assert catalog_file.read_text() == before
    assert remote("pull", "--yes").returncode == 0
    assert Catalog.load(catalog_file).ids() == []


def test_what_autumn_does_not_answer_with_stays_in_the_file(remote: Run, server: Server, catalog_file: Path) -> None:
    """A pull of a changed plan keeps the proration, which no list has."""
    catalog_file.unlink()
    assert remote("init", "seats").returncode == 0
    assert remote("push", "--yes").returncode == 0
    assert remote("diff").returncode == 0
    server.call("/v1/plans.update", {"plan_id": "team", "name": "The team"})
    assert remote("pull").returncode == 0
    written = catalog_file.read_text()
    assert 'name="The team"' in written
    assert 'proration=Proration(on_increase="prorate_immediately", on_decrease="none")' in written


def test_a_file_of_atmn_2_is_left_alone(pushed: Catalog, remote: Run, catalog_file: Path) -> None:
    """The form that is written is one that the newer atmn refuses, so its file is not replaced by it."""
    newer = catalog_file.with_name("autumn.config.ts")
    newer.write_text("import { atmn } from 'atmn';\nexport default atmn({ plans: [{ planId: 'free' }] });\n")
    result = remote("pull", "--ts")
    assert result.returncode not in (0, 3)
    assert "has the form of atmn 2" in result.stderr
    assert "planId" in newer.read_text()


@pytest.mark.parametrize(("text", "form"), [("export default atmn({});", "atmn 2"), ("plan({ id: 'free' })", "atmn 1")])
def test_a_catalog_in_typescript_is_named(remote: Run, here: Path, text: str, form: str) -> None:
    """Whose file it is, and what to do with it, instead of a syntax error."""
    (here / "autumn.config.ts").write_text(text)
    result = remote("diff", "--config", "autumn.config.ts")
    assert f"in the form of {form}" in result.stderr
