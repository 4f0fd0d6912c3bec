"""`autumn login` with a real Chromium."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from cli.processes import Run, Server, clean_environment
from cli.test_cli_account import Login

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("login_ports")]

_CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def page() -> Iterator[Page]:
    """A tab."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield browser.new_page()
        browser.close()


@pytest.fixture
def login(here: Path, tmp_path: Path, server: Server) -> Iterator[Login]:
    """A login that waits for the browser."""
    running = Login(here, clean_environment(tmp_path) | {"AUTUMN_BASE_URL": server.url}, "--no-browser")
    yield running
    running.kill()


def test_allowing_in_the_browser_writes_keys_that_work(
    page: Page, login: Login, here: Path, server: Server, autumn: Run
) -> None:
    """From the printed address over Autumn's page back to the terminal, as a person does it."""
    page.goto(login.url)
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url("http://localhost:3144*/**")
    assert page.get_by_role("heading").inner_text() == "Signed in"
    code, out, _ = login.end()
    assert code == 0
    assert "Signed in: the keys are in .env" in out
    assert stat.S_IMODE((here / ".env").stat().st_mode) == 0o600
    assert "env:          sandbox" in autumn("env", env={"AUTUMN_BASE_URL": server.url}).stdout


def test_denying_in_the_browser_ends_the_login(page: Page, login: Login, here: Path) -> None:
    """Page and terminal say the same, and nothing is written."""
    page.goto(login.url)
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url("http://localhost:3144*/**")
    assert page.get_by_role("heading").inner_text() == "Not signed in"
    assert "User denied" in page.content()
    code, _, err = login.end()
    assert code == 1
    assert "Error: Sign-in failed: User denied. Run autumn login to try again." in err
    assert not (here / ".env").exists()
