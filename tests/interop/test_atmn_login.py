"""`atmn login`, unmodified, and a real browser on the emulator's page."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from cli.processes import Server
from interop.clients import Atmn

CHROMIUM = "/usr/bin/chromium"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("login_ports"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """A file that gets the address which atmn wants to show, and not the browser of the machine."""
    program = tmp_path / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/address\n')
    program.chmod(0o755)
    return tmp_path / "address"


def _start(atmn: Atmn, opened: Path) -> tuple[subprocess.Popen[str], str]:
    """Run `atmn login`, and return it with the address that it opened."""
    environment = atmn.environment(key=None)
    environment["PATH"] = f"{opened.parent}/bin:{environment['PATH']}"
    process = subprocess.Popen(
        [*atmn.command, "login"],
        cwd=atmn.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (opened.exists() and opened.read_text()):
        assert time.monotonic() < deadline, "atmn opened no browser"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process, opened.read_text()


def test_allowing_writes_two_working_keys(atmn: Atmn, opened: Path, server: Server, browser: Browser) -> None:
    """A click on Allow ends in a `.env` with a sandbox and a production key that the emulator accepts."""
    process, address = _start(atmn, opened)
    page = browser.new_page()
    page.goto(address)
    page.get_by_role("button", name="Allow").click()
    output, errors = process.communicate(timeout=60)
    page.close()

    assert process.returncode == 0, errors
    assert "Success! Sandbox and production keys have been saved to your .env file." in output
    keys = dict(line.split("=", 1) for line in (atmn.folder / ".env").read_text().split())
    environments = {
        name: httpx.get(f"{server.url}/v1/organization/me", headers={"authorization": f"Bearer {key}"}).json()["env"]
        for name, key in keys.items()
    }
    assert environments == {"AUTUMN_SECRET_KEY": "sandbox", "AUTUMN_PROD_SECRET_KEY": "live"}


def test_denying_ends_the_login(atmn: Atmn, opened: Path, browser: Browser) -> None:
    """A click on Deny ends it with 1 and without keys."""
    process, address = _start(atmn, opened)
    page = browser.new_page()
    page.goto(address)
    page.get_by_role("button", name="Deny").click()
    _, errors = process.communicate(timeout=60)
    page.close()

    assert process.returncode == 1
    assert "Authentication failed: User denied" in errors
    assert not (atmn.folder / ".env").exists()


def test_made_up_code_is_worth_nothing(atmn: Atmn, opened: Path, server: Server) -> None:
    """A code that the emulator did not give out is refused, and atmn says why."""
    process, address = _start(atmn, opened)
    asked = httpx.URL(address).params
    httpx.get(asked["redirect_uri"], params={"code": "made-up", "state": asked["state"]})
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Authentication failed: OAuth error: invalid_grant" in errors
