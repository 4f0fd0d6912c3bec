"""Reading one answer from the bytes of a connection, strictly: what can be read in two ways is no answer.

The grammar of RFC 9112 is held against each head, which leaves nothing to interpret, and httptools reads chunks. It is
generous in places where generosity lets two programs disagree about where an answer ends, so every byte has to belong
to the answer.
"""

import re
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fastapi_autumn.transports._base import LARGEST_ANSWER, Answer, is_compressed

__all__ = ["AnswerReader", "MalformedAnswer"]

_LARGEST_HEAD: Final = 64 * 1024
_HEAD: Final = re.compile(
    rb"HTTP/1\.[01] [1-5][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_FIELD: Final = re.compile(r"\n([^:\r\n]+):[\t ]*([^\r\n]*)")
_HEAD_BEFORE_CHUNKS: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_BARE_LINE_END: Final = re.compile(rb"(?<!\r)\n")
_BEGINNING: Final = b"HTTP/1."
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_FRAMING_BYTES: Final = frozenset(name.encode("ascii") for name in _FRAMING)
_LENGTH: Final = re.compile("[0-9]{1,15}")
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL: Final = 200
_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304


class MalformedAnswer(Exception):
    """These bytes are no answer; the message says why, and shows none of them."""


class AnswerReader:
    """Reads the answer to one request.

    `answer` is None until all of it is there. `is_reusable` says whether the connection may carry another request
    afterwards.
    """

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.is_reusable = False
        self._is_in_head = True
        self._head_size = 0
        self._status = 0
        self._pending = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._received = 0
        # What is to come: a number of bytes, chunks, or (with neither) all until the connection ends.
        self._length: int | None = None
        self._is_chunked = False
        self._chunks: HttpResponseParser | None = None
        self._last_bytes = b""

    def feed(self, data: bytes) -> None:
        """Take what came.

        Raises:
            MalformedAnswer: It cannot be an answer, or more came than belongs to it.
        """
        try:
            while self._is_in_head and data:
                data = self._feed_head(data)
            if data:
                self._feed_body(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise MalformedAnswer(type(error).__name__) from None
        if self.answer is not None:
            # The parser holds on to this reader: without the cycle, nothing is left for the garbage collector.
            self._chunks = None

    def end(self) -> None:
        """Take note that the server has closed the connection properly.

        Raises:
            MalformedAnswer: The answer was not whole.
        """
        if self._is_in_head or self._is_chunked or self._length is not None:
            raise MalformedAnswer("the connection was closed")
        self._complete()

    def _feed_head(self, data: bytes) -> bytes:
        """Take what belongs to the head, and return the rest."""
        searched = max(0, len(self._pending) - 3)
        data = self._pending + data
        if data[: len(_BEGINNING)] != _BEGINNING[: len(data)]:
            raise MalformedAnswer("it does not begin as HTTP/1")
        end = data.find(b"\r\n\r\n", searched) + 4
        if end < 4:  # noqa: PLR2004 - not found
            if _BARE_LINE_END.search(data):
                raise MalformedAnswer("its head is not as RFC 9112 says")
            end = len(data)
            self._pending = data
        else:
            self._pending = b""
        if self._head_size + end > _LARGEST_HEAD:
            raise MalformedAnswer("its head is too large")
        if not self._pending:
            self._head_size += end
            self._read_head(data[:end])
        return data[end:]

    def _read_head(self, head: bytes) -> None:
        if _HEAD.fullmatch(head) is None:
            raise MalformedAnswer("its head is not as RFC 9112 says")
        version, status = head[5:8], int(head[9:12])
        headers = _fields(head)
        if status >= _FIRST_FINAL:
            self._is_in_head = False
            self._status, self._headers = status, headers
            self._find_end(status, is_1_1=version == b"1.1")
        elif status == _SWITCHING_PROTOCOLS or headers.keys() & _FRAMING:
            raise MalformedAnswer(f"a {status} that nobody asked for, or with a body")

    def _find_end(self, status: int, *, is_1_1: bool) -> None:
        """Settle where the body ends (RFC 9112, section 6.3), as far as there is one way to see it."""
        length, coding = self._headers.get("content-length"), self._headers.get("transfer-encoding")
        self.is_reusable = is_1_1 and not _says_close(self._headers.get("connection", ""))
        if status == _NO_CONTENT and self._headers.keys() & _FRAMING:
            raise MalformedAnswer("a 204 with a body")
        if is_compressed(self._headers):
            raise MalformedAnswer("it is compressed")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None or not is_1_1:
                raise MalformedAnswer("its Transfer-Encoding leaves open where it ends")
            self._is_chunked = True
        elif length is not None:
            self._length = _bytes_to_come(length)
        else:
            self.is_reusable = False
        if status in {_NO_CONTENT, _NOT_MODIFIED}:
            self._length, self._is_chunked = 0, False
        if self._length == 0:
            self._complete()

    def _feed_body(self, data: bytes) -> None:
        self._received += len(data)
        if self.answer is not None or (self._length is not None and self._received > self._length):
            raise MalformedAnswer("more came than belongs to it")
        if self._received > LARGEST_ANSWER:
            raise MalformedAnswer("it is too large")
        if self._is_chunked:
            self._feed_chunks(data)
        else:
            self._body.append(data)
            if self._received == self._length:
                self._complete()

    def _feed_chunks(self, data: bytes) -> None:
        if self._chunks is None:
            self._chunks = HttpResponseParser(self)
            self._chunks.feed_data(_HEAD_BEFORE_CHUNKS)
        self._last_bytes = (self._last_bytes + data)[-5:]
        self._chunks.feed_data(data)
        # The parser passes over empty lines that follow. The answer itself ends with a line that is not empty and then
        # one that is, so whatever else was there would have changed the last five bytes.
        if self.answer is not None and (self._last_bytes[1:] != b"\r\n\r\n" or self._last_bytes[0] in b"\r\n"):
            raise MalformedAnswer("more came than belongs to it")

    def _complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.answer = Answer(self._status, self._headers, body)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.answer is not None:
            raise MalformedAnswer

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002 - a trailer is not read
        # A trailer has no say in what the answer is, and may not try to have one.
        if self._last_bytes and name.lower() in _FRAMING_BYTES:
            raise MalformedAnswer

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._complete()


def _fields(head: bytes) -> dict[str, str]:
    """Return the fields of a head that is as it should be; those with one name become one."""
    text = head.decode("latin-1")
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text, text.index("\r\n")):
        key, text = name.lower(), value.rstrip(" \t")
        before = fields.get(key)
        fields[key] = text if before is None else f"{before}, {text}"
    return fields


def _says_close(connection: str) -> bool:
    return "close" in (option.strip(" \t") for option in connection.lower().split(","))


def _bytes_to_come(length: str) -> int:
    if not _LENGTH.fullmatch(length):
        raise MalformedAnswer("its Content-Length leaves open where it ends")
    if int(length) > LARGEST_ANSWER:
        raise MalformedAnswer("it is too large")
    return int(length)
