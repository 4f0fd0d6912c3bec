"""`autumn login`, `logout` and `env`: the keys of this directory."""

import asyncio
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr, field_validator

from fastapi_autumn.cli._backend import CommandSettings, connect, document, run, settings_for
from fastapi_autumn.cli._console import confirm, fields, note, show
from fastapi_autumn.cli._conventions import OutputFormat, Prod, Yes
from fastapi_autumn.cli._dotenv import set_variables
from fastapi_autumn.cli._oauth import SignInFailed, fetch_keys, waiting
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.transports import transport_for

__all__ = ["env", "login", "logout"]

_DOTENV = Path(".env")
_SECONDS_TO_SIGN_IN = 300


class _SettingsWithoutKey(CommandSettings):
    """The settings for getting a key: one that is there already may be any."""

    @field_validator("secret_key")
    @classmethod
    def _looks_like_a_secret_key(cls, key: SecretStr | None) -> SecretStr | None:
        return key


def login(
    *,
    browser: Annotated[bool, typer.Option(help="Open the browser, or only print the address.")] = True,
    yes: Yes = False,
) -> None:
    """Sign in with the browser and write the keys to .env.

    Writes AUTUMN_SECRET_KEY (sandbox) and AUTUMN_PROD_SECRET_KEY (production), keeps all other lines, and makes the
    file readable for you alone.

    Examples:
        autumn login
        autumn login --no-browser
    """
    settings = _SettingsWithoutKey.load()
    if settings.emulator:
        raise ConfigurationError(
            "AUTUMN_EMULATOR is on, and the emulator in this process needs no key; unset it first."
        )
    if settings.secret_key is not None or settings.prod_secret_key is not None:
        confirm("There are keys already, in the environment or .env. Get new ones?", yes=yes)
    sandbox, production = run(_sign_in(settings, browser=browser))
    set_variables(_DOTENV, {"AUTUMN_PROD_SECRET_KEY": production, "AUTUMN_SECRET_KEY": sandbox})
    print("Signed in: the keys are in .env, which only you can read. Do not commit it.")
    note("Next: autumn env shows whose they are.")


def logout() -> None:
    """Take the keys out of .env.

    They stay valid: to end that, delete them in Autumn's dashboard.

    Examples:
        autumn logout
    """
    names = set_variables(_DOTENV, {"AUTUMN_PROD_SECRET_KEY": None, "AUTUMN_SECRET_KEY": None})
    print(f"Took {' and '.join(names)} out of .env." if names else "There are no keys in .env.")


def env(output_format: OutputFormat = "table", prod: Prod = False) -> None:
    """Show which organisation and environment the key belongs to.

    Examples:
        autumn env
        autumn env --prod
    """
    settings = settings_for(prod=prod)

    async def ask() -> dict[str, object]:
        async with connect(settings) as client:
            return document(await client.get("organization/me"), "organization/me")

    answer = run(ask())
    address = f"emulator in {settings.emulator_path}" if settings.emulator else settings.base_url
    found = {name: answer.get(name) for name in ("name", "slug", "env")} | {"address": address}
    if output_format == "table":
        fields({"organisation": found.pop("name"), **found})
    else:
        show(output_format, list(found), [list(found.values())], document=found)


async def _sign_in(settings: CommandSettings, *, browser: bool) -> tuple[str, str]:
    transport = transport_for(settings)
    try:
        async with waiting(settings.base_url) as sign_in:
            note("Sign in and choose your organisation at this address:")
            print(sign_in.url, flush=True)
            if browser:
                # In a thread, because some browsers keep the caller until they are closed.
                threading.Thread(target=webbrowser.open, args=(sign_in.url,), daemon=True).start()
            try:
                async with asyncio.timeout(_SECONDS_TO_SIGN_IN):
                    code = await sign_in.code
            except TimeoutError:
                raise SignInFailed("nobody signed in within 5 minutes") from None
            return await fetch_keys(transport, sign_in, code)
    finally:
        await transport.aclose()
