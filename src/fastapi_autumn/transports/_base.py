"""What a transport is."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pydantic import SecretStr

__all__ = ["Answer", "Transport"]


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
            NoAnswer: The request may have left; no whole answer came back in time.
        """
        ...

    async def aclose(self) -> None:
        """Close what this transport opened, and nothing that it was given."""
        ...
