"""What users may import: the names that are promised, and nothing that is not there."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import EntryPoints
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.wheel import WheelBuilder

import fastapi_autumn

ROOT = Path(__file__).parents[1]


def public_modules() -> list[str]:
    """Every module that users import from: none with an underscore, nor the insides of command line and emulator."""
    found = [module.name for module in pkgutil.walk_packages(fastapi_autumn.__path__, "fastapi_autumn.")]
    inside = ("fastapi_autumn.cli.", "fastapi_autumn.emulator.")
    return ["fastapi_autumn", *(name for name in found if "._" not in name and not name.startswith(inside))]


def own_names(module: ModuleType) -> set[str]:
    """The public classes and functions that a module itself defines."""
    home = module.__name__
    return {name for name, value in vars(module).items() if name[0] != "_" and home == getattr(value, "__module__", "")}


def test_the_facade_is_small_and_sorted() -> None:
    """About a dozen names, in the order in which people look for them."""
    names = fastapi_autumn.__all__
    assert names == sorted(set(names), key=lambda name: (not name.startswith("__"), not name.isupper(), name))
    assert len(names) <= 15
    assert dir(fastapi_autumn) == sorted(names)


@pytest.mark.parametrize("name", [name for name in fastapi_autumn.__all__ if name != "__version__"])
def test_a_name_of_the_facade_is_that_of_its_home(name: str) -> None:
    """One object under both names, so that `isinstance` and `except` do not depend on the import."""
    value = getattr(fastapi_autumn, name)
    home = importlib.import_module(f"fastapi_autumn.{fastapi_autumn._HOMES[name]}")
    assert value is getattr(home, name)
    assert name in home.__all__


def test_type_checkers_see_the_same_facade() -> None:
    """The imports for type checkers and the table for Python are written twice, and say the same."""
    tree = ast.parse(Path(str(fastapi_autumn.__file__)).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname: str(node.module).removeprefix("fastapi_autumn.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == fastapi_autumn._HOMES


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """A typing mistake is reported as Python reports it, also by `hasattr`."""
    with pytest.raises(AttributeError, match="module 'fastapi_autumn' has no attribute 'Autum'"):
        fastapi_autumn.Autum  # type: ignore[attr-defined] # noqa: B018 - the point of the test
    assert not hasattr(fastapi_autumn, "autumn_middleware")


@pytest.mark.parametrize("name", public_modules())
def test_all_is_what_a_module_has(name: str) -> None:
    """`__all__` names each public thing that the module defines, once, and nothing that is missing."""
    module = importlib.import_module(name)
    promised = module.__all__
    assert len(promised) == len(set(promised))
    assert [entry for entry in promised if not hasattr(module, entry)] == []
    assert own_names(module) <= set(promised)


@pytest.mark.parametrize("name", public_modules())
def test_a_public_module_is_documented(name: str) -> None:
    """The module, and each class and function it promises, says what it is for."""
    module = importlib.import_module(name)
    assert module.__doc__
    undocumented = [
        entry
        for entry in module.__all__
        if isinstance(getattr(module, entry), type) and not getattr(module, entry).__doc__
    ]
    assert undocumented == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the project's own build back end."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return Path(built)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """Each module, `py.typed`, the licence, and no test, demo or file of a developer."""
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    source = ROOT / "src"
    modules = {str(file.relative_to(source)) for file in source.rglob("*.py")}
    assert modules <= package
    assert "fastapi_autumn/py.typed" in package
    assert {Path(name).parts[0] for name in package} == {"fastapi_autumn"}
    assert {Path(name).suffix for name in package} <= {".py", ".typed", ".html", ".css", ".js", ".json"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    """Version, extras, the command and the pytest plugin are where installers look for them."""
    with zipfile.ZipFile(wheel) as archive:
        read = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(read["METADATA"])
    assert metadata["Name"] == "fastapi-autumn"
    assert metadata["Version"] == fastapi_autumn.__version__
    assert set(metadata.get_all("Provides-Extra", [])) == {"cli", "prices", "postgres"}
    points = EntryPoints._from_text_for(read["entry_points.txt"], None)  # type: ignore[attr-defined] # no public parser
    assert {(point.group, point.name, point.value) for point in points} == {
        ("console_scripts", "autumn", "fastapi_autumn.cli:main"),
        ("pytest11", "fastapi_autumn", "fastapi_autumn.pytest_plugin"),
    }


def test_the_readme_of_the_wheel_has_no_dead_link(wheel: Path) -> None:
    """An index shows the README without the repository around it, so a relative link would lead nowhere."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    text = str(metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert text.startswith("# fastapi-autumn")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "![" not in text


def test_the_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Every name of the facade comes from the unpacked wheel, not from the files of the repository."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import fastapi_autumn\n"
        "from fastapi_autumn import *\n"
        "from fastapi_autumn import emulator, catalog, pytest_plugin\n"
        "assert Autumn.__module__ == 'fastapi_autumn.autumn'\n"
        "foreign = [m for n, m in sys.modules.items() if n.startswith('fastapi_autumn')"
        f" and not m.__file__.startswith({str(tmp_path)!r})]\n"
        "assert not foreign, foreign"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=tmp_path)
