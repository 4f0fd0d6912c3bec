"""How a request ended, judged by what was delivered.

The first thing that happens to an answer decides: its last part goes out (done), the caller leaves (gone), or the route
raises in the middle of it (failed). What comes after that changes nothing, with two exceptions. A status of 400 or more
is always a failure, and so is an event stream whose generator failed: FastAPI completes its body all the same.

A WebSocket is done when its handler returns or closes it, gone when the caller closes it first, and failed when the
handler raises or closes it with one of the codes that say so.

Nothing here does I/O. The middleware reports what passes through it, and `_scope.watch_route` what the route raises.
Where the latter is missing, an exception after a complete body counts as the route's, in favour of the customer.
"""

import traceback
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from fastapi_autumn.settlement import Outcome

__all__ = ["Ending"]

# Internal error, service restart, try again later, bad gateway. The other codes may be the caller's doing.
_SERVER_FAILED = range(1011, 1015)


class Ending:
    """What is known about the end of one request. Made afresh for each."""

    __slots__ = (
        "_caller_left",
        "_decided",
        "_has_trailers",
        "_last_part_under_way",
        "_route_is_hidden",
        "_status",
        "_was_cut_off",
    )

    def __init__(self) -> None:
        self._status: int | None = None
        self._has_trailers = False
        self._last_part_under_way = False
        self._caller_left = False
        self._route_is_hidden = False
        self._was_cut_off = False
        self._decided: Outcome | None = None

    @property
    def started(self) -> bool:
        """Whether the answer has begun."""
        return self._status is not None

    def sending(self, message: Message) -> None:
        """Note that `message` is handed to the server. The status counts from here on, delivered or not."""
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self._status = message["status"]
                self._has_trailers = bool(message.get("trailers", False))
            case "websocket.accept":
                self._status = HTTPStatus.SWITCHING_PROTOCOLS
        self._last_part_under_way = self.is_last_part(message)

    def sent(self, message: Message) -> None:
        """Note that the server took `message`."""
        if message["type"] == "websocket.close":
            self._decide(Outcome.FAILED if message.get("code") in _SERVER_FAILED else Outcome.DONE)
        elif self._last_part_under_way:
            self._decide(Outcome.DONE)

    def caller_left(self) -> None:
        """Note that the server reports a disconnect."""
        self._caller_left = True
        # While the server takes the last part, a report may mean only that the exchange is over.
        if not self._last_part_under_way:
            self._decide(Outcome.GONE)

    def send_failed(self) -> None:
        """Note that the server could not send: newer servers report a disconnect in this way."""
        self._decide(Outcome.GONE)

    def send_cut_off(self) -> None:
        """Note that the application gave up while the server was waiting for the caller to read."""
        # Or the generator of an event stream failed beside it, which `route_exits` tells.
        self._was_cut_off = self._decided is None
        self._decide(Outcome.GONE)

    def route_is_hidden(self) -> None:
        """Note that nobody will tell what the route raises."""
        self._route_is_hidden = True

    def route_exits(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Note the exception that comes out of the route, if any, seen inside of every middleware."""
        if error is None:
            return
        if _is_hang_up(error):
            self._decide(Outcome.GONE)
        elif (self._decided is Outcome.DONE or self._was_cut_off) and _is_from_event_stream(error):
            self._decided = Outcome.FAILED
        elif self.started:
            self._decide(Outcome.FAILED)

    def outcome(self, error: BaseException | None = None) -> Outcome:
        """Tell how the request ended, once the application has returned or raised `error`."""
        # Nobody pays for an error, however well it was delivered.
        if self._status is not None and self._status >= HTTPStatus.BAD_REQUEST:
            return Outcome.FAILED
        if not self.started and isinstance(error, Exception) and not _is_hang_up(error):
            # The server answers this with a 500, to a caller who left as to any other.
            return Outcome.FAILED
        # It may be the producer's, and another middleware may have completed the body after it.
        if self._decided is Outcome.DONE and self._route_is_hidden and error is not None and not _is_hang_up(error):
            return Outcome.FAILED
        if self._decided is not None:
            return self._decided
        # A handler that returns leaves it to the server to close the WebSocket.
        if error is None and self._status == HTTPStatus.SWITCHING_PROTOCOLS:
            return Outcome.DONE
        return Outcome.GONE if self._caller_left or _is_hang_up(error) else Outcome.FAILED

    def _decide(self, outcome: Outcome) -> None:
        if self._decided is None:
            self._decided = outcome

    def is_last_part(self, message: Message) -> bool:
        """Tell whether nothing of the answer follows `message`."""
        match message["type"]:
            case "http.response.body" | "http.response.zerocopysend":
                return not message.get("more_body", False) and not self._has_trailers
            case "http.response.pathsend":
                return not self._has_trailers
            case "http.response.trailers":
                return not message.get("more_trailers", False)
        return False


def _is_hang_up(error: BaseException | None) -> bool:
    """Tell whether an exception only says that the caller left. FastAPI's event streams raise it in a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_hang_up(inner) for inner in error.exceptions)
    return isinstance(error, ClientDisconnect | WebSocketDisconnect)


def _is_from_event_stream(error: BaseException) -> bool:
    """Tell whether an exception that came out of the route after a complete body is that of an event stream.

    FastAPI runs an event stream's generator in a task of its own. When the generator fails, the task ends the body as
    if all were well, and a group with the failure comes out when the route is left. Background tasks and dependencies
    that use task groups raise groups after a delivered answer, too, and only a traceback tells the two apart: the
    outermost frame of FastAPI's task is FastAPI's own, that of an application's task is the application's.

    When this guesses wrong: should a later FastAPI start that task from another package, customers would pay for event
    streams that failed, and `tests/test_outcomes.py` would show it. An application that runs one of FastAPI's functions
    as a task of its own gives a delivered answer back. An exception without a traceback counts as the stream's, in
    favour of the customer.
    """
    return isinstance(error, BaseExceptionGroup) and any(
        _is_from_event_stream(inner) or _task_of(inner) in {"fastapi", ""} for inner in error.exceptions
    )


def _task_of(error: BaseException) -> str:
    """Return the package whose function the failed task ran, or nothing where there is no traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in {"anyio", "asyncio"}:
            return package
    return ""
