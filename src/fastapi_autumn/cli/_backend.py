"""Which Autumn a command talks to: the real one with the key of the environment asked for, or the emulator."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import SecretStr

from fastapi_autumn.client import AutumnClient
from fastapi_autumn.errors import ConfigurationError, UnexpectedAnswer
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.transports import Answer, AsgiTransport

__all__ = ["CommandSettings", "connect", "document", "run", "settings_for"]

_T = TypeVar("_T")
_PATIENCE = 30.0


class CommandSettings(AutumnSettings):
    """What only the command line reads: the key for `--prod`."""

    prod_secret_key: SecretStr | None = None


def settings_for(*, prod: bool = False) -> CommandSettings:
    """Read the settings; with `prod` the key is the one of production.

    Raises:
        ConfigurationError: No key, the wrong kind of key, or `prod` together with the emulator.
    """
    settings = CommandSettings.load()
    # A catalog of hundreds of plans takes Autumn longer than a check in front of a customer may.
    changes: dict[str, Any] = {"timeout": max(settings.timeout, _PATIENCE)}
    if prod:
        key = settings.prod_secret_key
        if settings.emulator:
            raise ConfigurationError("AUTUMN_EMULATOR is on, and an emulator has no production; leave out --prod.")
        if key is None or not key.get_secret_value():
            raise ConfigurationError(
                "AUTUMN_PROD_SECRET_KEY is not set; --prod needs your am_sk_live_... key there, or run autumn login."
            )
        if not key.get_secret_value().startswith("am_sk_live_"):
            raise ConfigurationError("AUTUMN_PROD_SECRET_KEY is no production key; it has to look like am_sk_live_...")
        changes["secret_key"] = key
    elif not settings.emulator and settings.secret_key is None:
        raise ConfigurationError(
            "AUTUMN_SECRET_KEY is not set; run autumn login, put your am_sk_test_... key into .env, or set "
            "AUTUMN_EMULATOR=true to use the emulator, which needs no key."
        )
    settings = settings.model_copy(update=changes)
    settings.require_backend()
    return settings


@asynccontextmanager
async def connect(settings: CommandSettings) -> AsyncIterator[AutumnClient]:
    """Have a client while inside."""
    if not settings.emulator:
        client = AutumnClient(settings)
        try:
            yield client
        finally:
            await client.aclose()
        return
    from fastapi_autumn.cli._emulator import open_emulator  # noqa: PLC0415 - only where it is used
    from fastapi_autumn.emulator import EMULATOR_KEY  # noqa: PLC0415

    emulator = open_emulator(settings.emulator_path)
    try:
        transport = AsgiTransport(emulator, timeout=settings.timeout)
        yield AutumnClient(settings, transport=transport, secret_key=EMULATOR_KEY)
    finally:
        emulator.close()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run what a command does."""
    return asyncio.run(work)


def document(answer: Answer, operation: str) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        UnexpectedAnswer: It is none.
    """
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UnexpectedAnswer(operation, "the answer is not Autumn's")
    return content
