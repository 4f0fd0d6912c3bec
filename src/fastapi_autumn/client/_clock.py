"""Autumn's time of day, as far as the `Date` of its answers tells."""

from email.utils import parsedate_to_datetime

from fastapi_autumn._machine import Machine

__all__ = ["RemoteClock"]

_WEIGHT = 8
_JUMP_MS = 5_000


class RemoteClock:
    """Another machine's time of day, learned from its answers.

    Between two answers it goes on with this machine's steady clock, because its time of day may be set at any moment: a
    hold that ends by a clock that was just put back has ended before it begins.

    Args:
        machine: This machine's clocks.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        # What to add to the steady clock, in ms; None until something is known.
        self._offset: float | None = None
        self._last: tuple[str, int | None] = ("", None)

    @property
    def is_known(self) -> bool:
        """Whether anything is known about their clock."""
        return self._offset is not None

    def now_ms(self) -> int:
        """Return their time of day in ms since 1970; this machine's own until something is known."""
        if self._offset is None:
            return self._machine.wall_ms()
        return round(self._machine.steady() * 1000 + self._offset)

    def learn(self, date: str | None, *, sent: float) -> None:
        """Take into account an answer, dated `date`, that came just now.

        Args:
            date: Its header.
            sent: When the request was sent, in seconds of the steady clock.
        """
        theirs = self._read(date)
        if theirs is None:
            return
        sent_ms, received_ms = sent * 1000, self._machine.steady() * 1000
        # The header has whole seconds, so half a second later on average; over many answers that evens out.
        seen = theirs + 500 - (sent_ms + received_ms) / 2
        took = received_ms - sent_ms
        if self._offset is None:
            self._offset = seen
        elif abs(seen - self._offset) > _JUMP_MS + took:
            # Their clock was set, or this machine stood still without noticing: what was learned before is over.
            self._offset = seen
        elif took < _JUMP_MS:
            # What took longer tells less than what is known.
            self._offset += (seen - self._offset) / _WEIGHT

    def _read(self, date: str | None) -> int | None:
        if date is None or date == self._last[0]:
            return None if date is None else self._last[1]
        try:
            read = int(parsedate_to_datetime(date).timestamp() * 1000)
        except (ValueError, OverflowError):
            read = None
        self._last = (date, read)
        return read
