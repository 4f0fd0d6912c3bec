"""`autumn doctor`."""

import asyncio
import json
import subprocess
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from cli.processes import Run, Server
from cli.test_cli_refunds import outbox

__all__ = ["outbox"]


def _findings(result: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    return {one["check"]: (one["result"], one["detail"]) for one in json.loads(result.stdout)["list"]}


def test_a_set_up_that_works_is_ok_from_top_to_bottom(remote: Run, catalog_file: Path, here: Path) -> None:
    """Nothing to complain about: 0."""
    remote("push", "--yes")
    here.joinpath("prices.toml").write_text('[models]\n"gpt-4o" = 3\n')
    result = remote("doctor", "--format", "json", env={"AUTUMN_PRICES": "prices.toml"})
    assert result.returncode == 0
    found = _findings(result)
    assert {name: result for name, (result, _) in found.items()} == dict.fromkeys(
        ["settings", "price list", "key", "connection", "clock", "catalog", "outbox"], "ok"
    )
    assert found["connection"][1].startswith("Emulator at http://127.0.0.1:")
    assert "am_sk_test_..." in found["key"][1]


def test_the_emulator_in_the_process_needs_no_key(local: Run) -> None:
    """What there is not is skipped and no problem."""
    result = local("doctor", "--format", "json")
    assert result.returncode == 0
    found = _findings(result)
    assert found["key"] == ("ok", "none is needed: the emulator in .autumn/emulator.db")
    assert found["catalog"][0] == found["price list"][0] == "skipped"
    assert found["clock"][0] == "ok"


def test_a_variable_that_cannot_be_used_is_the_first_problem(autumn: Run) -> None:
    """Without settings nothing else can be looked at."""
    result = autumn("doctor", "--format", "json", env={"AUTUMN_TIMEOUT": "soon"})
    assert result.returncode == 1
    assert list(_findings(result)) == ["settings"]
    assert "AUTUMN_TIMEOUT" in _findings(result)["settings"][1]


def test_without_a_key_the_rest_is_still_examined(autumn: Run) -> None:
    """One problem does not hide another: the outbox needs no key."""
    result = autumn("doctor", "--format", "json")
    assert result.returncode == 1
    found = _findings(result)
    assert found["key"][0] == "problem"
    assert "autumn login" in found["key"][1]
    assert found["outbox"] == ("ok", "nothing waits")


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"AUTUMN_SECRET_KEY": "am_sk_test_unknown"}, "Invalid secret key"),
        ({"AUTUMN_BASE_URL": "http://127.0.0.1:9"}, "Check AUTUMN_BASE_URL"),
    ],
    ids=["wrong key", "no network"],
)
def test_a_connection_that_fails_says_why(env: dict[str, str], says: str, remote: Run) -> None:
    """The sentence is that of the other commands."""
    result = remote("doctor", "--format", "json", env=env)
    assert result.returncode == 1
    assert _findings(result)["connection"][0] == "problem"
    assert says in _findings(result)["connection"][1]


def test_catalogs_that_differ_are_a_problem(remote: Run, catalog_file: Path) -> None:
    """The way on is autumn diff."""
    result = remote("doctor", "--format", "json")
    assert result.returncode == 1
    assert _findings(result)["catalog"] == ("problem", "autumn_config.py and Autumn differ in 4; see autumn diff")


def test_a_catalog_that_is_broken_is_a_problem(remote: Run, catalog_file: Path) -> None:
    """The line is named."""
    catalog_file.write_text("x = (\n")
    assert "line 1" in _findings(remote("doctor", "--format", "json"))["catalog"][1]


def test_a_price_list_that_is_broken_is_a_problem(local: Run, here: Path) -> None:
    """As when the service starts."""
    here.joinpath(".env").write_text("AUTUMN_PRICES=nowhere.toml\n")
    result = local("doctor", "--format", "json")
    assert result.returncode == 1
    assert "nowhere.toml" in _findings(result)["price list"][1]


def test_charges_that_wait_for_a_person_are_a_problem(outbox: Path, local: Run) -> None:
    """They wait until somebody decides."""
    result = local("doctor", "--format", "json")
    assert result.returncode == 1
    assert _findings(result)["outbox"] == ("problem", "1 wait for a person; see autumn refunds list")


def test_an_outbox_that_cannot_be_opened_is_a_problem(local: Run, here: Path) -> None:
    """A service could not start with it."""
    here.joinpath(".env").write_text("AUTUMN_OUTBOX_URL=nonsense\n")
    assert "AUTUMN_OUTBOX_URL" in _findings(local("doctor", "--format", "json"))["outbox"][1]


@pytest.mark.parametrize(("seconds", "way"), [(-600, "ahead of"), (600, "behind")])
async def test_a_clock_that_is_wrong_is_a_problem(seconds: int, way: str, autumn: Run) -> None:
    """Autumn's answer carries another time than this machine has."""

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = formatdate(time.time() + seconds, usegmt=True)
        body = b'{"name": "Elsewhere", "list": []}'
        head = f"HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        env = {"AUTUMN_BASE_URL": f"http://127.0.0.1:{port}", "AUTUMN_SECRET_KEY": "am_sk_test_whatever"}
        result = await asyncio.to_thread(autumn, "doctor", "--format", "json", env=env)
    verdict, detail = _findings(result)["clock"]
    assert verdict == "problem"
    assert f"s {way} Autumn" in detail


def test_doctor_prints_a_table(server: Server, remote: Run) -> None:
    """For people."""
    shown = remote("doctor").stdout
    assert "connection   ok" in shown


def test_a_misspelt_variable_is_a_problem(local: Run, here: Path) -> None:
    """Nothing reads it, so it has no effect: doctor names the one that was meant."""
    (here / ".env").write_text("AUTUMN_TIMEOU=9\n")
    result = local("doctor")
    assert result.returncode == 1
    assert "AUTUMN_TIMEOU is no setting, did you mean AUTUMN_TIMEOUT?" in result.stdout
