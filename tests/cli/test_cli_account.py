"""`autumn login`, `logout` and `env`. What a browser does is done by hand; test_cli_login_browser has a real one."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import urlopen

import pytest

from cli.processes import LIVE_KEY, Run, Server, clean_environment
from fastapi_autumn.emulator import EMULATOR_KEY

pytestmark = pytest.mark.usefixtures("login_ports")
_PORTS = range(31448, 31453)


class Login:
    """A login that runs. `url` is what it asks the browser to open."""

    def __init__(self, here: Path, env: dict[str, str], *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastapi_autumn.cli", "login", *arguments],
            cwd=here,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}

    def come_back(self, **answer: str) -> tuple[int, str]:
        """What the browser is told when it comes back with `answer`: status and page."""
        return _get(f"{self.query['redirect_uri']}?{urlencode(answer)}")

    def end(self) -> tuple[int, str, str]:
        out, err = self._process.communicate(timeout=60)
        return self._process.returncode, out, err

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url.replace("localhost", "127.0.0.1")) as answer:  # noqa: S310 - the login's own port
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def login(here: Path, tmp_path: Path, server: Server) -> Iterator[Login]:
    """A login that waits for the browser."""
    env = clean_environment(tmp_path) | {"AUTUMN_BASE_URL": server.url}
    running = Login(here, env, "--no-browser")
    yield running
    running.kill()


def _consent(server: Server, login: Login) -> str:
    """Say yes on Autumn's page, and return where the browser is sent."""
    form = {name: login.query[name] for name in ("redirect_uri", "state", "code_challenge", "client_id")}
    body = urlencode(form | {"decision": "allow"}).encode()

    connection = HTTPConnection(urlsplit(server.url).netloc)
    with contextlib.closing(connection):
        connection.request("POST", "/api/auth/oauth2/consent", body)
        location = connection.getresponse().getheader("location")
    assert location is not None
    return location


def test_login_asks_for_what_the_official_command_line_asks_for(login: Login, server: Server) -> None:
    """Autumn knows the client by its id, its redirects and its scopes; PKCE is on."""
    assert login.url.startswith(f"{server.url}/api/auth/oauth2/authorize?")
    assert login.query["client_id"] == "hAWUopQqLnsSwuRgeRzIBzKslwXmQUSr"
    assert login.query["redirect_uri"] in {f"http://localhost:{port}/" for port in _PORTS}
    assert login.query["response_type"] == "code"
    assert login.query["code_challenge_method"] == "S256"
    assert login.query["prompt"] == "consent"
    assert login.query["scope"] == (
        "customers:create customers:read customers:list customers:update customers:delete features:create "
        "features:read features:list features:update features:delete plans:create plans:read plans:list "
        "plans:update plans:delete rewards:read rewards:write apiKeys:create apiKeys:read organisation:read"
    )


def test_login_writes_the_keys_and_they_work(login: Login, server: Server, here: Path, autumn: Run) -> None:
    """From the browser's yes to a command that uses the new key; the file is for its owner alone."""
    here.joinpath(".env").write_text("# mine\nFOO=1\nexport AUTUMN_SECRET_KEY=am_sk_test_of_before\nBAR=2")
    status, page = _get(_consent(server, login))
    assert (status, "Signed in" in page) == (200, True)
    code, out, _ = login.end()
    assert code == 0
    assert "the keys are in .env" in out
    (form,) = server.sent("/api/auth/oauth2/token")
    assert parse_qs(form)["redirect_uri"] == [login.query["redirect_uri"]]
    lines = here.joinpath(".env").read_text().splitlines()
    assert lines[:2] == ["# mine", "FOO=1"]
    assert lines[2].startswith("AUTUMN_SECRET_KEY=am_sk_test_")
    assert lines[3] == "BAR=2"
    assert lines[4].startswith("AUTUMN_PROD_SECRET_KEY=am_sk_live_")
    assert len(lines) == 5
    assert stat.S_IMODE(here.joinpath(".env").stat().st_mode) == 0o600
    shown = autumn("env", "--prod", env={"AUTUMN_BASE_URL": server.url})
    assert "organisation: Emulator" in shown.stdout
    assert "env:          live" in shown.stdout


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": "access_denied", "error_description": "User denied", "state": ""}, "User denied"),
        ({"state": ""}, "no authorization code"),
        ({"code": "invented", "state": ""}, "The code is not valid"),
    ],
    ids=["denied", "no code", "invalid code"],
)
def test_a_sign_in_that_fails_says_why(answer: dict[str, str], reason: str, login: Login, here: Path) -> None:
    """The terminal has the reason and the next step, and no file is written."""
    if answer["state"] == "":
        answer = answer | {"state": login.query["state"]}
    login.come_back(**answer)
    code, _, err = login.end()
    assert code == 1
    assert "Error: Sign-in failed: " in err
    assert reason in err
    assert "Run autumn login to try again." in err
    assert "Traceback" not in err
    assert not here.joinpath(".env").exists()


def test_a_denial_is_shown_in_the_browser_without_its_markup(login: Login) -> None:
    """What stands in the address is text on the page, whoever wrote it."""
    status, page = login.come_back(error="x", error_description="<script>alert(1)</script>", state=login.query["state"])
    assert status == 400
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "answer",
    [{"error": "access_denied"}, {"error": "x", "state": "of-another-sign-in"}, {"code": "c", "state": "other"}, {}],
    ids=["an error", "an error of another sign-in", "a code of another sign-in", "nothing"],
)
def test_a_strangers_page_does_not_end_a_sign_in(answer: dict[str, str], login: Login, server: Server) -> None:
    """Any site can send the browser to the port; without the state it changes nothing, and the real answer counts."""
    status, page = login.come_back(**answer)
    assert (status, "still waits" in page) == (400, True)
    _get(_consent(server, login))
    assert login.end()[0] == 0


def test_other_addresses_of_the_port_answer_404_and_end_nothing(login: Login, server: Server) -> None:
    """A browser asks for its favicon, too."""
    status, _ = _get(login.query["redirect_uri"] + "favicon.ico")
    assert status == 404
    _get(_consent(server, login))
    assert login.end()[0] == 0


def test_a_failure_to_make_keys_is_said_in_autumns_words(login: Login, server: Server, here: Path) -> None:
    """The code was good, the keys were refused."""
    server.fault("signin.keys", kind="fail", status=403)
    _get(_consent(server, login))
    code, _, err = login.end()
    assert code == 1
    assert "Sign-in failed: A fault that was asked for. Run autumn login to try again." in err
    assert not here.joinpath(".env").exists()


def test_login_opens_the_browser_with_the_printed_address(here: Path, tmp_path: Path, server: Server) -> None:
    """The browser of the environment gets the address that the terminal shows."""
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened.part && mv {tmp_path}/opened.part {tmp_path}/opened\n'
    )
    browser.chmod(0o755)
    env = clean_environment(tmp_path) | {"AUTUMN_BASE_URL": server.url, "BROWSER": str(browser)}
    running = Login(here, env)
    try:
        _get(_consent(server, running))
        assert running.end()[0] == 0
        assert (tmp_path / "opened").read_text() == running.url
    finally:
        running.kill()


def test_login_asks_before_it_replaces_keys(remote: Run) -> None:
    """Without a terminal and without --yes, keys that are there stay."""
    result = remote("login", "--no-browser")
    assert result.returncode == 3
    assert "There are keys already" in result.stderr
    assert "add --yes" in result.stderr


def test_a_broken_key_does_not_stand_in_the_way_of_a_new_one(here: Path, tmp_path: Path, server: Server) -> None:
    """Login is the way out of a malformed key, so it does not insist on a good one."""
    env = clean_environment(tmp_path) | {"AUTUMN_BASE_URL": server.url, "AUTUMN_SECRET_KEY": "nonsense"}
    running = Login(here, env, "--no-browser", "--yes")
    try:
        _get(_consent(server, running))
        assert running.end()[0] == 0
    finally:
        running.kill()


def test_login_says_when_all_its_ports_are_taken(remote: Run) -> None:
    """Autumn sends browsers back to five ports and no other."""
    with contextlib.ExitStack() as stack:
        for port in _PORTS:
            with contextlib.suppress(OSError):  # taken by somebody else is taken, too
                listener = stack.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
                listener.listen()
        result = remote("login", "--no-browser", "--yes")
    assert result.returncode == 1
    assert "the ports 31448 to 31452 are all in use" in result.stderr


def test_login_without_a_network(autumn: Run, here: Path) -> None:
    """The emulator in the process needs no key, and says so."""
    result = autumn("login", env={"AUTUMN_EMULATOR": "true"})
    assert result.returncode == 1
    assert "needs no key" in result.stderr


def test_logout_takes_the_keys_and_nothing_else(autumn: Run, here: Path) -> None:
    """Every other line stays, comments and order included."""
    path = here / ".env"
    path.write_text(f"# c\nFOO=1\nAUTUMN_PROD_SECRET_KEY={LIVE_KEY}\n\nAUTUMN_SECRET_KEY={EMULATOR_KEY}\nBAR=2\n")
    result = autumn("logout")
    assert result.returncode == 0
    assert "AUTUMN_PROD_SECRET_KEY and AUTUMN_SECRET_KEY" in result.stdout
    assert path.read_text() == "# c\nFOO=1\n\nBAR=2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert autumn("logout").stdout == "There are no keys in .env.\n"


def test_logout_follows_a_link(autumn: Run, here: Path, tmp_path: Path) -> None:
    """A .env that is a link stays one; the file behind it changes."""
    target = tmp_path / "shared.env"
    target.write_text(f"AUTUMN_SECRET_KEY={EMULATOR_KEY}\n")
    here.joinpath(".env").symlink_to(target)
    assert autumn("logout").returncode == 0
    assert here.joinpath(".env").is_symlink()
    assert target.read_text() == ""


def test_env_shows_whose_key_it_is(remote: Run, server: Server) -> None:
    """Organisation, environment and address, for people and for scripts."""
    assert remote("env").stdout.splitlines() == [
        "organisation: Emulator",
        "slug:         emulator",
        "env:          sandbox",
        f"address:      {server.url}",
    ]
    assert '"env": "sandbox"' in remote("env", "--format", "json").stdout


def test_the_key_is_read_from_env(autumn: Run, server: Server, here: Path) -> None:
    """What login wrote is what commands use."""
    here.joinpath(".env").write_text(f"AUTUMN_SECRET_KEY={EMULATOR_KEY}\nAUTUMN_BASE_URL={server.url}\n")
    assert os.environ.get("AUTUMN_SECRET_KEY") is None
    assert "sandbox" in autumn("env").stdout
