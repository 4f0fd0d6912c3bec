"""README.md does what it says: its programs run, its commands exist, and its answers are real."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.upper().startswith("AUTUMN_")},
    "AUTUMN_EMULATOR": "true",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def programs() -> dict[str, str]:
    """The Python blocks by the file name that their first line gives."""
    return {block.partition("\n")[0].removeprefix("# "): block for block in blocks("python")}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with nothing but the files of the README."""
    for name, program in programs().items():
        (tmp_path / name).write_text(program)
    return tmp_path


@pytest.fixture
def service(directory: Path) -> Iterator[str]:
    """The whole app of the README under the uvicorn of the README, and its host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]
    server = subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        while not reachable(port):
            assert server.poll() is None, server.communicate()
            time.sleep(0.05)
        yield f"localhost:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=120)


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("name", programs())
def test_programs_run(directory, name):
    """Each Python block runs in a clean directory, without a warning."""
    assert name.endswith(".py")
    done = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    # Without a terminal the emulator says that it is on, which is not what is tested here.
    said = [line for line in done.stderr.splitlines() if not line.startswith("AUTUMN_EMULATOR is on")]
    assert (done.returncode, said) == (0, [])


def test_call_and_refusal(service):
    """The curl line gets the headers that the text names; the eleventh one gets the JSON that is shown."""
    curl = next(block for block in blocks("shell") if block.startswith("curl"))
    answers = [
        subprocess.run(
            ["bash", "-c", curl.replace("localhost:8000", service)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for _ in range(11)
    ]
    promised = re.findall(r"`(autumn-credits-\w+: \d+)`", README)
    (shown,) = (json.loads(block) for block in blocks("json"))

    assert len(promised) == 2
    assert [line for line in answers[0].splitlines() if line in promised] == promised
    assert answers[0].endswith("gpt-4o says hello to Ada ")
    assert answers[9].startswith("HTTP/1.1 200")
    assert answers[10].startswith("HTTP/1.1 402")
    refused = json.loads(answers[10].splitlines()[-1])
    assert refused["detail"]["balance"].pop("next_reset_at") > time.time() * 1000
    shown["detail"]["balance"].pop("next_reset_at")
    assert refused == shown


def test_five_commands_from_nothing_to_a_paid_call(directory):
    """The commands of "Plans as code", pasted into a shell, end in the answer of a paid call, and show the plans."""
    (commands,) = (block for block in blocks("shell") if "autumn init" in block)
    (plans,) = blocks("text")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = commands.replace("main:app", f"main:app --port {port}").replace("localhost:8000", f"localhost:{port}")
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "AUTUMN_EMULATOR"}
    shell = subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=directory,
        env=environment | {"COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = shell.communicate(timeout=120)

    assert "200 OK\ngpt-4o says hello to Bea" in output
    shown = {" ".join(line.split()) for line in output.splitlines()}
    assert [line for line in plans.splitlines() if " ".join(line.split()) not in shown] == []


def test_shell_commands_exist():
    """Every command of a shell block is one that this environment has."""
    commands = []
    for block in blocks("shell"):
        for line in block.replace("\\\n", " ").splitlines():
            words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
            commands.append(words[0])

    assert {"pip", "uvicorn", "curl"} <= set(commands)
    missing = [command for command in commands if shutil.which(command, path=ENVIRONMENT["PATH"]) is None]
    assert sorted(missing) == ["export"]


def test_programs_type_check(directory):
    """Whoever checks types strictly can paste the programs as they are."""
    command = [sys.executable, "-m", "mypy", "--strict", *programs()]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout


def test_links():
    """Every relative link of the README leads to a file."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", README)

    assert len(targets) > 5
    assert [target for target in targets if not (ROOT / target).exists()] == []
