"""What login makes of the answers of Autumn's sign-in."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from fastapi_autumn.cli._oauth import SignIn, SignInFailed, fetch_keys, waiting
from fastapi_autumn.errors import UnexpectedAnswer
from fastapi_autumn.transports import Answer

_TOKEN = {"access_token": "am_oauth_x"}


class _Scripted:
    """A transport that gives the next answer, and keeps what it was asked."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.asked: list[tuple[str, bytes, SecretStr | None]] = []
        self._answers = list(answers)

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        self.asked.append((path, body, bearer))
        status, content = self._answers.pop(0)
        return Answer(status, {}, content)

    async def aclose(self) -> None:
        """There is nothing to close."""


async def _fetch(*answers: tuple[int, Any]) -> tuple[str, str]:
    transport = _Scripted(*((status, json.dumps(content).encode()) for status, content in answers))
    sign_in = SignIn("https://api.useautumn.com", 31448, asyncio.get_running_loop().create_future())
    return await fetch_keys(transport, sign_in, "code")


async def test_the_token_is_used_for_the_keys_and_for_nothing_else() -> None:
    """Two requests: the code for a token, the token for the keys."""
    keys = {"sandbox_key": "am_sk_test_a-1", "prod_key": "am_sk_live_b_2"}
    transport = _Scripted((200, json.dumps(_TOKEN).encode()), (200, json.dumps(keys).encode()))
    sign_in = SignIn("https://api.useautumn.com", 31448, asyncio.get_running_loop().create_future())
    assert await fetch_keys(transport, sign_in, "code") == ("am_sk_test_a-1", "am_sk_live_b_2")
    (token_path, form, nothing), (keys_path, body, token) = transport.asked
    assert (token_path, keys_path, body) == ("/api/auth/oauth2/token", "/cli/api-keys", b"")
    assert f"code_verifier={sign_in.verifier}".encode() in form
    assert nothing is None
    assert token == SecretStr("am_oauth_x")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"sandbox_key": "am_sk_test_a\nPATH=/tmp", "prod_key": "am_sk_live_b"},
        {"sandbox_key": "am_sk_live_a", "prod_key": "am_sk_test_b"},
        {"sandbox_key": "am_sk_test_a", "prod_key": 7},
    ],
)
async def test_keys_that_are_none_are_not_written(keys: dict[str, Any]) -> None:
    """An answer cannot bring other lines into .env, nor mix up sandbox and production."""
    with pytest.raises(UnexpectedAnswer, match=r"am_sk_(test|live)_\.\.\. key"):
        await _fetch((200, _TOKEN), (200, keys))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": "invalid_grant", "error_description": "The code is not valid."}, "The code is not valid"),
        ({"error": "invalid_grant"}, "invalid_grant"),
        ({"message": "Missing scope", "code": "forbidden"}, "Missing scope"),
        ({}, "Autumn answered 403"),
    ],
)
async def test_the_reason_is_found_wherever_it_stands(answer: dict[str, Any], reason: str) -> None:
    """The two endpoints put it into different fields."""
    with pytest.raises(SignInFailed, match=f"^Sign-in failed: {reason}. Run autumn login to try again.$"):
        await _fetch((200, _TOKEN), (403, answer))


@pytest.mark.parametrize("content", [b"<html>", b"[]", b""])
async def test_an_answer_that_is_no_object_is_not_autumns(content: bytes) -> None:
    """A proxy answered."""
    sign_in = SignIn("https://api.useautumn.com", 31448, asyncio.get_running_loop().create_future())
    with pytest.raises(UnexpectedAnswer, match="502"):
        await fetch_keys(_Scripted((502, content)), sign_in, "code")


def test_what_must_stay_secret_is_not_in_the_repr() -> None:
    """State and verifier do not reach a log by accident."""
    loop = asyncio.new_event_loop()
    sign_in = SignIn("https://api.useautumn.com", 31448, loop.create_future())
    loop.close()
    assert sign_in.verifier not in repr(sign_in)
    assert sign_in.state not in repr(sign_in)


async def test_a_connection_that_says_nothing_holds_nobody_up() -> None:
    """A browser may open connections in advance; the sign-in ends all the same, and with it the port is free."""
    async with waiting("https://api.useautumn.com") as sign_in:
        idle, writer = await asyncio.open_connection("127.0.0.1", sign_in.port)
        code = f"/?code=c&state={sign_in.state}"
        answer, asking = await asyncio.open_connection("127.0.0.1", sign_in.port)
        asking.write(f"GET {code} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert b"Signed in" in await answer.read()
        assert await sign_in.code == "c"
    writer.close()
    asking.close()
    assert idle.at_eof() is False
    async with asyncio.timeout(60), waiting("https://api.useautumn.com") as again:
        assert again.port == sign_in.port
