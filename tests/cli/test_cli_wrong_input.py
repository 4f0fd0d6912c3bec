"""What can be wrong around a command: each gets its sentence and its exit code, and never a traceback."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.processes import LIVE_KEY, Run, Server

_ASKS_AUTUMN = [
    ("customers",),
    ("plans",),
    ("features",),
    ("events",),
    ("env",),
    ("check", "ada", "ai_usage"),
    ("track", "ada", "ai_usage"),
    ("diff",),
    ("push", "--yes"),
    ("pull",),
]


def failed_with(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Ended with 1, said one thing on stderr, and printed no result."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize("arguments", _ASKS_AUTUMN, ids=" ".join)
def test_without_a_key_it_says_how_to_get_one(arguments: tuple[str, ...], autumn: Run, catalog_file: Path) -> None:
    """Every command that needs a key names the variable, and two ways on."""
    failed_with(autumn(*arguments), "AUTUMN_SECRET_KEY is not set", "autumn login", "AUTUMN_EMULATOR=true")


def test_a_key_that_is_none_is_not_shown(autumn: Run) -> None:
    """A malformed key is named by its variable; the value stays secret."""
    result = autumn("env", env={"AUTUMN_SECRET_KEY": "sk_live_from_somewhere_else"})
    failed_with(result, "AUTUMN_SECRET_KEY", "am_sk_test_")
    assert "somewhere_else" not in result.stderr


@pytest.mark.parametrize("arguments", [("env",), ("push", "--yes"), ("customers",)], ids=" ".join)
def test_a_wrong_key_leads_to_login(arguments: tuple[str, ...], remote: Run, catalog_file: Path) -> None:
    """A key that Autumn does not know is told apart from everything else."""
    result = remote(*arguments, env={"AUTUMN_SECRET_KEY": "am_sk_test_unknown_one"})
    failed_with(result, "401", "Invalid secret key", "autumn login")
    assert "am_sk_test_unknown_one" not in result.stderr


@pytest.mark.parametrize("arguments", [("env",), ("diff",), ("events",)], ids=" ".join)
def test_without_a_network_it_says_what_to_check(arguments: tuple[str, ...], autumn: Run, catalog_file: Path) -> None:
    """Nothing listens: the address is named, and where to look."""
    env = {"AUTUMN_BASE_URL": "http://127.0.0.1:9", "AUTUMN_SECRET_KEY": "am_sk_test_whatever"}
    failed_with(autumn(*arguments, env=env), "http://127.0.0.1:9", "Check AUTUMN_BASE_URL")


def test_a_server_error_is_one_sentence(remote: Run, server: Server) -> None:
    """Autumn is down for longer than the retries."""
    server.fault("plans.list", kind="fail", status=500)
    failed_with(remote("plans"), "plans.list: Autumn answered 500. Try again in a moment.")


def test_a_lost_answer_is_looked_up(remote: Run, server: Server, catalog_file: Path) -> None:
    """The connection breaks after the update was done: it is not sent again, and nobody claims that it failed."""
    server.fault("catalog.update", kind="drop")
    result = remote("push", "--yes")
    assert result.returncode == 0
    assert "has the catalog of the file all the same" in result.stderr
    assert len(server.sent("/v1/catalog.update")) == 1


def test_a_rate_limit_is_one_sentence(remote: Run, server: Server) -> None:
    """Too many requests: nothing was done."""
    server.fault("features.list", kind="fail", status=429, retry_after=60)
    failed_with(remote("features"), "429", "Nothing was done; try again in a moment.")


def test_an_answer_that_is_not_autumns_points_at_the_address(remote: Run, server: Server) -> None:
    """The address belongs to some other server, which answers 200 and something else."""
    result = remote("env", env={"AUTUMN_BASE_URL": f"{server.url}/somewhere"})
    failed_with(result, "AUTUMN_BASE_URL", "without a path")


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b'{"list": 3}'])
async def test_a_200_that_is_not_autumns_is_an_error(body: bytes, autumn: Run) -> None:
    """Some other server answers, or a page in front of it: that is no empty list."""

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        env = {"AUTUMN_BASE_URL": f"http://127.0.0.1:{port}", "AUTUMN_SECRET_KEY": "am_sk_test_whatever"}
        result = await asyncio.to_thread(autumn, "plans", env=env)
    failed_with(result, "plans.list: ", "Check that AUTUMN_BASE_URL is Autumn's.")


@pytest.mark.parametrize("arguments", [("preview",), ("diff",), ("push", "--yes")], ids=" ".join)
def test_without_a_catalog_file_it_says_how_to_get_one(arguments: tuple[str, ...], local: Run) -> None:
    """No file: written by init, or brought by pull."""
    failed_with(local(*arguments), "There is no autumn_config.py", "autumn init", "autumn pull", "--config")


@pytest.mark.parametrize("arguments", [("preview",), ("diff",), ("push", "--yes"), ("pull",)], ids=" ".join)
def test_a_syntax_error_in_the_catalog_names_its_line(arguments: tuple[str, ...], local: Run, here: Path) -> None:
    """The file does not compile."""
    here.joinpath("autumn_config.py").write_text("x = 1\nplan = (\n")
    failed_with(local(*arguments), "autumn_config.py, line 2", "'(' was never closed")


def test_an_error_in_the_catalog_names_its_line(local: Run, here: Path) -> None:
    """The file compiles and fails."""
    here.joinpath("autumn_config.py").write_text("import nowhere_to_be_found\n")
    failed_with(local("preview"), "autumn_config.py, line 1", "nowhere_to_be_found")


def test_an_invalid_catalog_is_refused_before_anything_is_sent(remote: Run, server: Server, catalog_file: Path) -> None:
    """What Autumn would refuse is said with every problem on its line, and without a request."""
    text = catalog_file.read_text().replace("included=50, ", "").replace("included=2000", "included=-1")
    catalog_file.write_text(text.replace('id="pro"', 'id="pro plan"'))
    result = remote("push", "--yes")
    failed_with(result, "Autumn would refuse autumn_config.py", "pro plan")
    assert server.requests == []


def test_prod_needs_a_key_of_its_own(remote: Run, catalog_file: Path) -> None:
    """--prod never uses the key of the sandbox."""
    failed_with(remote("push", "--prod", "--yes"), "AUTUMN_PROD_SECRET_KEY is not set", "autumn login")


def test_prod_refuses_a_key_of_the_sandbox(remote: Run) -> None:
    """The two keys in the wrong places are noticed before anything is sent."""
    result = remote("env", "--prod", env={"AUTUMN_PROD_SECRET_KEY": "am_sk_test_emulator"})
    failed_with(result, "AUTUMN_PROD_SECRET_KEY is no production key")


def test_prod_and_the_emulator_contradict_each_other(local: Run) -> None:
    """An emulator has no production."""
    failed_with(local("plans", "--prod"), "AUTUMN_EMULATOR", "--prod")


def test_the_emulator_and_a_live_key_contradict_each_other(autumn: Run) -> None:
    """The rule of the service holds for the command, too."""
    result = autumn("plans", env={"AUTUMN_EMULATOR": "true", "AUTUMN_SECRET_KEY": LIVE_KEY})
    failed_with(result, "AUTUMN_EMULATOR is on and AUTUMN_SECRET_KEY is a live key")


def test_a_live_key_in_the_place_of_the_sandbox_cannot_push(remote: Run, server: Server, catalog_file: Path) -> None:
    """Production is changed only by those who say so."""
    result = remote("push", "--yes", env={"AUTUMN_SECRET_KEY": LIVE_KEY})
    failed_with(result, "only with --prod", "AUTUMN_PROD_SECRET_KEY")
    assert server.requests == []


def test_a_file_that_is_no_emulators_is_named(local: Run, here: Path) -> None:
    """The emulator's file is something else."""
    here.joinpath(".autumn").mkdir()
    here.joinpath(".autumn/emulator.db").write_bytes(b"This is certainly not a database." * 100)
    failed_with(local("plans"), "emulator.db", "AUTUMN_EMULATOR_PATH")


def test_a_file_that_cannot_be_written_is_named(local: Run, here: Path) -> None:
    """An error of the operating system is a sentence, too."""
    failed_with(local("init", "--config", "no/such/directory.py"), "no/such/directory.py")


@pytest.mark.parametrize("arguments", [("env",), ("logout",), ("plans",)], ids=" ".join)
def test_settings_in_another_encoding_are_named(arguments: tuple[str, ...], local: Run, here: Path) -> None:
    """A .env that is no UTF-8 is named, and not shown."""
    (here / ".env").write_bytes(b"NAME=Zo\xe9\n")
    result = local(*arguments)
    failed_with(result, ".env is not UTF-8")
    assert "Zo" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("plans", "--format", "xml"), "--format"),
        (("customers", "--limit", "0"), "--limit"),
        (("events", "--since", "yesterday-ish"), "'yesterday-ish' is no time"),
        (("events", "--since", "99999999999w"), "is no time"),
        (("events", "--since", "1h", "--until", "2h"), "later than --since"),
        (("customers", "ada", "--search", "a"), "--search"),
        (("customers", "ada", "--all"), "--all"),
        (("plans", "pro", "--search", "a"), "leave out either"),
        (("features", "sso", "--search", "a"), "leave out either"),
        (("pull", "--ts", "--force"), "leave out --force"),
        (("push", "--intent", "pro"), "'pro' has to be a plan's id"),
        (("push", "--intent", "pro=burn"), "create_version"),
        (("init", "everything"), "credits"),
        (("check", "ada"), "FEATURE"),
        (("check", "ada", "ai_usage", "--required-balance", "lots"), "'lots' is no amount"),
        (("track", "ada", "ai_usage", "--value", "1,5"), "'1,5' is no amount"),
        (("models", "gpt-4o", "--margin", "much"), "'much' is no amount"),
        (("emulator", "serve", "--port", "70000"), "--port"),
        (("emulator", "clock", "--days", "-1"), "--days"),
        (("emulator", "clock", "--days", "1e12"), "--days"),
        (("refunds", "list", "--state", "lost"), "--state"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], says: str, local: Run) -> None:
    """Options that contradict each other or cannot be read are wrong usage, and the option is named."""
    result = local(*arguments)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "0"])
def test_an_amount_that_must_not_reach_autumn_is_refused_here(value: str, remote: Run, server: Server) -> None:
    """Amounts that are numbers but no amounts are refused before anything is sent."""
    failed_with(remote("track", "ada", "ai_usage", "--value", value))
    assert server.requests == []
