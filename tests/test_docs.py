"""The documentation does what it says: programs run, settings and errors are those of the code, nothing is orphaned."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from fastapi_autumn import errors
from fastapi_autumn.cli._backend import CommandSettings

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / ".env.example", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_programs_run(page, tmp_path):
    """The Python blocks of a page run, in order: those that name their file as files, the others as one program."""
    files: dict[str, str] = {}
    for block in blocks(page):
        named = re.match(r"# (\w+\.py)\n", block)
        name = named[1] if named else "page.py"
        files[name] = files.get(name, "") + block
    for name, program in files.items():
        (tmp_path / name).write_text(program)
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("AUTUMN_")}

    for name in files:
        as_test = name.startswith("test_")
        run = ["-m", "pytest", "-q", "-p", "no:cacheprovider", name] if as_test else ["-W", "error", name]
        done = subprocess.run(
            [sys.executable, *run],
            cwd=tmp_path,
            env={**environment, "AUTUMN_EMULATOR": "true"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        # Without a terminal the emulator says that it is on, which is not what is tested here.
        said = [line for line in done.stderr.splitlines() if not line.startswith("AUTUMN_EMULATOR is on")]
        assert (done.returncode, said) == (0, []), done.stdout


def test_operations_are_those_of_the_client():
    """The table of operations is the one that the script writes from the client and Autumn's contract."""
    page = (ROOT / "docs" / "client.md").read_text()
    assert script("client_reference").with_reference(page) == page, "run scripts/client_reference.py"


@pytest.mark.parametrize("page", ["api", "messages"])
def test_references_are_those_of_the_code(page):
    """The names with their docstrings, and the messages with their next steps, are those of the code."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert script(f"{page}_reference").with_reference(text) == text, f"run scripts/{page}_reference.py"


def test_every_error_and_every_code_has_a_next_step():
    """An error without one would leave its reader alone; the script stops at it, too."""
    steps = script("messages_reference").NEXT
    codes = set(re.findall(r"`([a-z]+_[a-z_]+|busy)`", (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")))

    assert [name for name in errors.__all__ if name[0].isupper() and name not in steps] == []
    assert {"in_progress", "already_answered", "idempotency_key_reused", "outcome_unknown", "busy"} <= codes


def test_settings_are_those_of_the_code():
    """The table of settings is the one that the script writes from AutumnSettings."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")

    assert script("settings_reference").with_table(page) == page, "run scripts/settings_reference.py"


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_variables_exist(text):
    """No text speaks of a variable that is none."""
    known = {f"AUTUMN_{name.upper()}" for name in CommandSettings.model_fields}  # those of the service, and one more
    named = set(re.findall(r"\bAUTUMN_[A-Z_]*[A-Z]\b", text.read_text(encoding="utf-8")))

    assert named - known == set()


def test_errors_are_those_of_the_code():
    """The picture of the errors is the one of the module, and the codes of the refusals are those of the classes."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    picture = "\n".join(line[4:] for line in errors.__doc__.splitlines() if line.startswith("    "))
    codes = {error.code for error in (errors.UnknownModel, errors.InsufficientCredits, errors.NotEntitled)}

    assert f"```text\n{picture}\n```" in page
    assert {code for code in codes if f"`{code}`" in page} == codes


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation, built in a directory of its own."""
    directory = tmp_path_factory.mktemp("documentation")
    shutil.copytree(ROOT / "docs", directory / "docs")
    shutil.copy(ROOT / "zensical.toml", directory)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "site"


class _Page(HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in {"img", "script", "link", "iframe"}:
            self.loads += [given[name] for name in ("src", "href") if name in given]


def test_no_link_is_dead_and_nothing_comes_from_elsewhere(site):
    """Every link leads to a page, and to a place on it; the pages work from files, and load nothing from elsewhere."""
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html") if file.name != "404.html"}
    dead, loaded = [], []
    for file, page in pages.items():
        for link in page.links:
            target, _, anchor = unquote(link).partition("#")
            if not re.match(r"[a-z]+:", target):
                found = pages.get((file.parent / target).resolve() if target else file)
                if found is None or anchor not in found.anchors:
                    dead.append((file.name, link))
        loaded += [address for address in page.loads if re.match(r"(https?:)?//", address)]

    assert len(pages) > 25
    assert (dead, loaded) == ([], [])


def test_every_page_has_a_description_of_its_own():
    """What a search engine shows of a page says what is on it."""
    found = [re.match(r"---\ndescription: (.+)\n---\n", page.read_text(encoding="utf-8")) for page in PAGES]

    assert [page.name for page, match in zip(PAGES, found, strict=True) if match is None] == []
    assert len({match[1] for match in found}) == len(PAGES)


def test_every_page_is_in_the_navigation():
    """A page can be found, and the navigation leads nowhere else."""
    sections = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    listed = [page for section in sections for pages in section.values() for page in pages]

    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES)


def test_tests_that_are_named_exist():
    """The page of what users asked for names tests that there are."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "asked-for.md").read_text(encoding="utf-8"))

    assert len(named) > 15
    missing = [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")]
    assert missing == []
