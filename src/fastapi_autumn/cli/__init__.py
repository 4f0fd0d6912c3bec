"""The command `autumn`: plans as code, looking things up, refunds, a local Autumn.

Nothing is imported here: a command loads what it needs when it runs, and `--help` has to answer at once.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process with its exit code."""
    import sys  # noqa: PLC0415 - see above
    from importlib.util import find_spec  # noqa: PLC0415

    if any(find_spec(name) is None for name in ("typer", "rich", "uvicorn")):
        sys.exit("The command autumn needs a few more packages; install them with: pip install 'fastapi-autumn[cli]'")
    from fastapi_autumn.cli._app import run  # noqa: PLC0415

    run()
