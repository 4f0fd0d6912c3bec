"""What a transport is, and what all of them refuse."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from pydantic import SecretStr

from fastapi_autumn.errors import UnsendableRequest

__all__ = [
    "LARGEST_ANSWER",
    "Answer",
    "ReusingTransport",
    "Transport",
    "is_compressed",
    "refuse_unsendable",
    "without_key",
]

LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer's body. A page of Autumn's longest list has less than one megabyte."""


class Answer(NamedTuple):
    """What came back: the status, the headers with lower-case names, the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """One way to reach Autumn."""

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: SecretStr | None = None
    ) -> Answer:
        """Send one request to `path` (such as `/v1/balances.check`) and return the whole answer.

        `bearer` becomes the `Authorization` header, last of all and out of sight: error trackers collect the local
        variables of every frame, so no variable holds the text of a key while a call waits.

        Raises:
            ConnectFailed: Nothing was sent.
            Overloaded: Nothing was sent, because no connection was free.
            UnsendableRequest: Nothing was sent, because HTTP cannot carry the path, a header or the key.
            NoAnswer: The request may have left; no whole answer came back in time.
        """
        ...

    async def aclose(self) -> None:
        """Close what this transport opened, and nothing that it was given."""
        ...


@runtime_checkable
class ReusingTransport(Transport, Protocol):
    """One that uses connections again, and can be told when that is not safe."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        bearer: SecretStr | None = None,
        in_step: bool = False,
    ) -> Answer:
        """See `Transport.request`.

        With `in_step` the answer will name nobody. It goes over a new connection, or one that has carried another kind
        of request since the last of these: had that one been answered twice, it would have shown.
        """
        ...

    def start_afresh(self) -> None:
        """Use no idle connection again: what came on one was not the answer to what was asked."""
        ...


def refuse_unsendable(path: str, headers: Mapping[str, str], bearer: SecretStr | None) -> None:
    """Refuse what would be another request on the wire than the one that was meant, before anything is sent.

    Line breaks in a value would be headers of somebody else's, and spaces around one do not survive the way.

    Raises:
        UnsendableRequest: It names the header and never shows a value.
    """
    together = "|".join([path, *headers.values(), "" if bearer is None else bearer.get_secret_value()])
    if " " not in path and "| " not in together and " |" not in together and _is_sendable(together):
        return  # as nearly always, for a fraction of what looking at each costs
    if not _is_sendable(path) or " " in path:
        raise _unsendable(path, "the path")
    for name, value in headers.items():
        if not _is_sendable(value):
            raise _unsendable(path, f"the header {name}")
    if bearer is not None and not _is_sendable(bearer.get_secret_value()):
        raise _unsendable(path, "the secret key")


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip(" ")


def _unsendable(path: str, what: str) -> UnsendableRequest:
    reason = f"{what} has a character that HTTP does not carry; use printable ASCII. Nothing was sent."
    return UnsendableRequest(f"{ascii(path)[1:-1]}: {reason}")


def is_compressed(headers: Mapping[str, str]) -> bool:
    """Tell whether the body is compressed. Nobody asked for that, and a little of it can become a lot of memory."""
    return headers.get("content-encoding", "identity").lower() != "identity"


def without_key(answer: Answer, bearer: SecretStr | None) -> Answer:
    """Return the answer with stars where it echoes the key, as whatever stands at the address may do."""
    key = "" if bearer is None else bearer.get_secret_value()
    if not key or (key.encode() not in answer.body and key not in "|".join(answer.headers.values())):
        return answer
    headers = {name: value.replace(key, "***") for name, value in answer.headers.items()}
    return Answer(answer.status, headers, answer.body.replace(key.encode(), b"***"))
