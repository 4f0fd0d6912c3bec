"""Autumn's clock, as far as the `Date` of its answers tells."""

from email.utils import parsedate_to_datetime

__all__ = ["RemoteClock"]

_WEIGHT = 8
_JUMP_MS = 5_000


class RemoteClock:
    """How far another machine's clock is ahead of ours, learned from what both say about the same moments.

    Attributes:
        offset_ms: What to add to our time of day to get theirs; 0 until something is known.
    """

    def __init__(self) -> None:
        self.offset_ms = 0
        self._offset: float | None = None
        self._last: tuple[str, int | None] = ("", None)

    @property
    def is_known(self) -> bool:
        """Whether anything is known about their clock."""
        return self._offset is not None

    def learn(self, date: str | None, *, sent_ms: int, received_ms: int) -> None:
        """Take into account an answer dated `date` to a request that was sent and answered at these times of ours."""
        theirs = self._read(date)
        if theirs is None:
            return
        # The header has whole seconds, so half a second later on average; over many answers that evens out.
        seen = theirs + 500 - (sent_ms + received_ms) / 2
        if self._offset is None or abs(seen - self._offset) > _JUMP_MS + received_ms - sent_ms:
            # One of the clocks was set: what was learned before is about another time.
            self._offset = seen
        else:
            self._offset += (seen - self._offset) / _WEIGHT
        self.offset_ms = round(self._offset)

    def _read(self, date: str | None) -> int | None:
        if date is None or date == self._last[0]:
            return None if date is None else self._last[1]
        try:
            read = int(parsedate_to_datetime(date).timestamp() * 1000)
        except (ValueError, OverflowError):
            read = None
        self._last = (date, read)
        return read
