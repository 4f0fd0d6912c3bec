"""Which messages of Autumn's webhooks were handled, so that each is handled once, on whichever worker it arrives.

A row per message and consumer says how far it has come: `running` while its handlers work, `done` afterwards. What
failed leaves no row, so that the sender's next attempt is handled anew, and what a dead worker was running is nobody's.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

__all__ = ["LIFETIME_MS", "Claim", "Messages", "MessagesAwayError", "Standing"]

LIFETIME_MS = 30 * 24 * 3600 * 1000
"""For how long a message is remembered. The sender tries for about a day; people send again what failed for weeks."""


class Standing(Enum):
    """What became of a message before this attempt."""

    NEW = "new"
    """Nothing: it is this attempt's to handle."""
    RUNNING = "running"
    """An earlier attempt is at it."""
    DONE = "done"
    """It was handled, and the sender has signed it anew since: the answer was lost, or a person sent it again."""
    REPLAYED = "replayed"
    """It was handled, and this is a copy of what was sent then, or before."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt to handle a message."""

    key: str
    attempt_id: str
    standing: Standing


class MessagesAwayError(Exception):
    """The database could not be asked, or told. A change may have got through all the same."""


class Messages(Protocol):
    """Rows of messages. Each method is one transaction.

    Raises:
        MessagesAwayError: From each method.
    """

    async def claim(self, consumer: str, message_id: str, *, signed_at: int, worker_id: str, now: int) -> Claim:
        """Begin to handle a message unless that was done, or is being done.

        Args:
            consumer: Whoever handles each message once. Services that share a database have different ones.
            message_id: As the sender gave it; the same at each of their attempts.
            signed_at: Seconds since 1970, by the sender's signature; later at each of their attempts.
            worker_id: Who handles it. It counts for as long as the database knows this worker.
            now: Wall clock in ms.
        """
        ...

    async def finish(self, claim: Claim, *, done: bool) -> None:
        """Note that a message was handled; if it was not, forget it. Void if another attempt has taken it over."""
        ...
