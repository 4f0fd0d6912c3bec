"""Help, version, completion, exit codes: what holds for every command."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import fastapi_autumn
from cli.processes import Run, clean_environment
from fastapi_autumn.cli._app import COMMANDS


def test_help_lists_every_command_and_the_exit_codes(autumn: Run) -> None:
    """`--help` names each command with its line, and says what the process can end with."""
    result = autumn("--help")
    assert result.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert "Exit codes:" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_the_first_of_its_own_help(name: str) -> None:
    """The table that `--help` prints says the same as the command itself."""
    from importlib import import_module

    module, line = COMMANDS[name]
    function = getattr(import_module(f"fastapi_autumn.cli.{module}"), name)
    if callable(function):
        assert (function.__doc__ or "").partition("\n")[0] == line


def test_help_loads_none_of_the_heavy_packages(tmp_path: Path) -> None:
    """What makes a command slow is loaded when it runs, not to print help."""
    code = (
        "import sys; sys.argv = ['autumn', '--help']\n"
        "from fastapi_autumn.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(tmp_path), capture_output=True, text=True, check=True
    )
    loaded = result.stdout.partition("LOADED ")[2]
    for package in ("pydantic", "fastapi", "starlette", "sqlalchemy", "httpx", "rich", "uvicorn"):
        assert f"'{package}'" not in loaded


def test_the_installed_command_says_its_version(tmp_path: Path) -> None:
    """The entry point `autumn` is there and is this package."""
    command = Path(sys.executable).with_name("autumn")
    result = subprocess.run(
        [command, "--version"], env=clean_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert result.stdout == f"{fastapi_autumn.__version__}\n"


@pytest.mark.parametrize("missing", ["typer", "rich", "uvicorn"])
def test_without_the_extra_one_sentence_says_what_to_install(missing: str, tmp_path: Path) -> None:
    """Without the extra `cli` the command fails with the line that installs it, not with a traceback."""
    code = (
        "import sys\n"
        "import importlib.util\n"
        "original = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name: None if name == {missing!r} else original(name)\n"
        "from fastapi_autumn.cli import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "pip install 'fastapi-autumn[cli]'" in result.stderr


def test_an_unknown_command_is_wrong_usage(autumn: Run) -> None:
    """A typo ends with 2, and with the command that was probably meant."""
    result = autumn("pusj")
    assert result.returncode == 2
    assert "There is no command 'pusj'. Did you mean push?" in result.stderr
    assert "Try 'autumn --help' for help." in result.stderr


def test_an_unknown_option_is_wrong_usage(autumn: Run) -> None:
    """An option that a command does not have ends with 2 and names it."""
    result = autumn("push", "--frobnicate")
    assert result.returncode == 2
    assert "--frobnicate" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(shell: str, tmp_path: Path) -> None:
    """The shell that calls the command gets a script that asks the command for what fits."""
    # Bash under another shell's name: the command looks at the name of the process that started it.
    command = f"{sys.executable} -m fastapi_autumn.cli --show-completion; exit $?"
    result = subprocess.run(
        [shell, "-c", command],
        executable="/bin/bash",
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert f"_AUTUMN_COMPLETE=complete_{shell}" in result.stdout


def test_completion_knows_commands_and_their_options(autumn: Run) -> None:
    """What the script asks for is answered: commands, and the options of one."""
    asked = {"_AUTUMN_COMPLETE": "complete_bash", "COMP_WORDS": "autumn pu", "COMP_CWORD": "1"}
    assert autumn(env=asked).stdout.split() == ["push", "pull"]
    asked |= {"COMP_WORDS": "autumn push --pr", "COMP_CWORD": "2"}
    assert autumn(env=asked).stdout.split() == ["--prod"]


def test_a_pipe_gets_no_colours_and_a_terminal_does(
    autumn: Run, here: Path, catalog_file: Path, tmp_path: Path
) -> None:
    """Escape sequences are for terminals, and NO_COLOR switches them off there, too."""
    assert "\x1b[" not in autumn("preview").stdout
    assert "\x1b[" in _on_a_terminal(here, clean_environment(tmp_path) | {"TERM": "xterm"})
    assert "\x1b[" not in _on_a_terminal(here, clean_environment(tmp_path) | {"TERM": "xterm", "NO_COLOR": "1"})


def _on_a_terminal(here: Path, env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastapi_autumn.cli", "preview"], cwd=here, env=env, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # what reading from a terminal that was closed on the other side ends with
            break
        if not chunk:
            break
        shown += chunk
    assert process.wait() == 0
    os.close(ours)
    return shown.decode()


def test_names_that_the_terminal_cannot_show_do_not_break_it(autumn: Run, catalog_file: Path) -> None:
    """A name outside of the terminal's encoding, or with an escape sequence in it, is shown as its code."""
    text = catalog_file.read_text().replace('name="Free"', 'name="Fr\\u00e9\\x1b[31m"')
    catalog_file.write_text(text)
    result = autumn("preview", env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert "Fr\\xe9\\x1b[31m" in result.stdout
