"""`autumn emulator`."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from cli.processes import Run, clean_environment
from fastapi_autumn import AutumnClient, AutumnSettings, Customer
from fastapi_autumn.emulator import EMULATOR_KEY, Emulator
from fastapi_autumn.transports import AsgiTransport


@contextlib.contextmanager
def _served(here: Path, home: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A server that runs, and the variables that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastapi_autumn.cli", "emulator", "serve", "--port", "0", *arguments],
        cwd=here,
        env=clean_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        printed = [process.stdout.readline().strip().partition("=") for _ in range(2)]
        yield process, {name: value for name, _, value in printed}
    finally:
        process.kill()
        process.communicate()


def test_serve_prints_what_a_service_needs_to_reach_it(
    here: Path, tmp_path: Path, autumn: Run, catalog_file: Path
) -> None:
    """The two lines are variables; with them, another process reaches the catalog of --config."""
    with _served(here, tmp_path, "--config", "autumn_config.py") as (process, variables):
        assert sorted(variables) == ["AUTUMN_BASE_URL", "AUTUMN_SECRET_KEY"]
        assert autumn("diff", env=variables).returncode == 0
        with urlopen(f"{variables['AUTUMN_BASE_URL']}/emulator/health") as answer:  # noqa: S310 - the test's own
            assert json.load(answer)["status"] == "ok"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        new, err = err.splitlines(keepends=True)
        assert new == "It is new, and has the plans of autumn_config.py.\n"
        assert err == "The emulator serves; set these two where your service runs. Ctrl-C ends it.\n"


def test_serve_without_a_config_has_the_example(here: Path, tmp_path: Path, autumn: Run) -> None:
    """A new emulator is not empty: it has the example's plans, and says where they come from."""
    with _served(here, tmp_path) as (process, variables):
        found = json.loads(autumn("plans", "--format", "json", env=variables).stdout)
        assert sorted(plan["id"] for plan in found["list"]) == ["credit_top_up", "free", "pro"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert err.startswith("It is new, and has the plans of an example, because there is no autumn_config.py")


def test_serve_listens_on_this_machine_only(autumn: Run) -> None:
    """Anything but loopback needs a flag that says so."""
    for host in ("0.0.0.0", "192.168.1.7", "example.com"):  # noqa: S104 - that it is refused is the point
        result = autumn("emulator", "serve", "--host", host)
        assert result.returncode == 1
        assert "--allow-remote" in result.stderr


def test_serve_listens_elsewhere_when_that_is_meant(here: Path, tmp_path: Path) -> None:
    """The flag is obeyed."""
    with _served(here, tmp_path, "--host", "0.0.0.0", "--allow-remote") as (_, variables):  # noqa: S104 - as above
        url = variables["AUTUMN_BASE_URL"].replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - as above
        with urlopen(f"{url}/emulator/health") as answer:  # noqa: S310 - the test's own
            assert answer.status == 200


def test_a_port_that_is_taken_is_named(autumn: Run) -> None:
    """The sentence has the option for another one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        result = autumn("emulator", "serve", "--port", port)
    assert result.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in result.stderr
    assert "--port" in result.stderr


def test_seed_adds_the_catalog_of_a_file(local: Run, catalog_file: Path) -> None:
    """A service with the emulator in its process finds it."""
    result = local("emulator", "seed")
    assert result.stdout == ".autumn/emulator.db has 2 features and 2 plans of autumn_config.py.\n"
    assert local("diff").returncode == 0


async def test_the_clock_moves_forward_and_balances_reset(local: Run, here: Path, catalog_file: Path) -> None:
    """A month of credits is used up, and a month later it is there again."""
    local("emulator", "seed")
    with contextlib.closing(Emulator(here / ".autumn/emulator.db")) as emulator:
        transport = AsgiTransport(emulator, timeout=5)
        client = AutumnClient(AutumnSettings(), transport=transport, secret_key=EMULATOR_KEY)
        await client.customers.get_or_create(Customer("ada"))
    local("track", "ada", "ai_usage", "--value", "50")
    assert local("check", "ada", "ai_usage").returncode == 3
    before = datetime.fromisoformat(local("emulator", "clock").stdout.strip())
    after = datetime.fromisoformat(local("emulator", "clock", "--days", "31", "--hours", "1").stdout.strip())
    assert 31 * 24 + 1 <= (after - before).total_seconds() / 3600 < 31 * 24 + 1.1
    assert local("check", "ada", "ai_usage").returncode == 0


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0)])
def test_reset_asks_first(answer: str, left: int, here: Path, tmp_path: Path, autumn: Run) -> None:
    """Customers go, the catalog it was seeded with stays; and a server that runs on the same file sees it."""
    autumn("init")
    autumn("emulator", "seed")
    with _served(here, tmp_path) as (_, variables):
        headers = {"authorization": f"Bearer {variables['AUTUMN_SECRET_KEY']}"}
        body = json.dumps({"customer_id": "ada"}).encode()
        url = f"{variables['AUTUMN_BASE_URL']}/v1/customers.get_or_create"
        with urlopen(Request(url, body, headers)) as answered:  # noqa: S310 - the test's own
            assert answered.status == 200
        result = autumn("emulator", "reset", answers=answer)
        assert result.returncode == (3 if left else 0)
        assert "Forget everything in .autumn/emulator.db?" in result.stderr
        with urlopen(f"{variables['AUTUMN_BASE_URL']}/emulator/health") as answered:  # noqa: S310 - the test's own
            assert json.load(answered)["customers"] == left
        assert "credit_top_up" in autumn("plans", env=variables).stdout
