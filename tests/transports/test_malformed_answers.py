"""Answers that RFC 9112 forbids, or that come early, twice, late or after the end: none of them is an answer.

Every case is one connection to a server that reads the request and writes these bytes. After that the transport has to
have let go of the connection: the next call gets its own answer, on another one.
"""

import pytest

from fastapi_autumn.errors import NoAnswer
from transports.scripted_server import Connection, plain, post, serve

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ANSWER = plain(b"{}")
END = b"<the end of the connection>"

FORBIDDEN = {
    # The status line.
    "no HTTP at all": b"220 mail.example.com ESMTP\r\n" + END,
    "a body without a head": b'{"allowed": true}' + END,
    "name in lower case": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "version without a point": b"HTTP/11 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no space before the status": b"HTTP/1.1200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a tab before the status": b"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
    "status with a sign": b"HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\n{}",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\n{}",
    "bare CR in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\n{}",
    "an empty line first": b"\r\n" + ANSWER,
    "a space first": b" " + ANSWER,
    # Header lines.
    "space before the colon": OK + b"Content-Length : 2\r\n\r\n{}",
    "space in a name": OK + b"Content Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "no colon": OK + b"Content-Length 2\r\n\r\n{}",
    "no name": OK + b": x\r\nContent-Length: 2\r\n\r\n{}",
    "non-ASCII name": OK + b"Caf\xe9: x\r\nContent-Length: 2\r\n\r\n{}",
    "folded line": OK + b"X: a\r\n Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}",
    "folded first line": OK + b" X: a\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a value": OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "bare CR in a value": OK + b"X: a\rContent-Length: 5\r\nContent-Length: 2\r\n\r\n{}",
    "control character in a value": OK + b"X: a\x01b\r\nContent-Length: 2\r\n\r\n{}",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "bare LF between two": OK + b"X: a\nContent-Length: 2\r\n\r\n{}",
    "endless head": OK + b"X: " + b"a" * 1_000_000,
    "endless number of headers": OK + b"X: a\r\n" * 200_000,
    # Where it ends.
    "negative length": OK + b"Content-Length: -2\r\n\r\n{}",
    "length with a plus": OK + b"Content-Length: +2\r\n\r\n{}",
    "hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\n{}",
    "length with a unit": OK + b"Content-Length: 2 bytes\r\n\r\n{}",
    "length with a point": OK + b"Content-Length: 2.0\r\n\r\n{}",
    "empty length": OK + b"Content-Length: \r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two lengths in one line": OK + b"Content-Length: 2, 3\r\n\r\n{}",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "length of 30 digits": OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "coding before chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "coding after chunks": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + END,
    "chunked twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked in two lines": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "coding that only looks like chunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + END,
    "identity coding": OK + b"Transfer-Encoding: identity\r\n\r\n{}" + END,
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
    "204 with chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "100 with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n{}" + ANSWER,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "an empty line after 100": b"HTTP/1.1 100 Continue\r\n\r\n\r\n" + ANSWER,
    # Chunks.
    "chunk size that is none": CHUNKED + b"g\r\n{}\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "empty chunk size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "space before a chunk size": CHUNKED + b" 2\r\n{}\r\n0\r\n\r\n",
    "chunk size of 25 digits": CHUNKED + b"f" * 25 + b"\r\n{}\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"2\r\n{}x\r\n0\r\n\r\n",
    "chunk shorter than its size": CHUNKED + b"3\r\n{}\r\n0\r\n\r\n",
    "no line end after a chunk": CHUNKED + b"2\r\n{}0\r\n\r\n",
    "bare LF after a chunk size": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "bare CR after a chunk size": CHUNKED + b"2\r{}\r\n0\r\n\r\n",
    "trailer without a colon": CHUNKED + b"2\r\n{}\r\n0\r\nX\r\n\r\n",
    "length in a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "coding in a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
    "endless chunk extension": CHUNKED + b"2;" + b"a" * (17 * 1024 * 1024),
    # It ends too early.
    "nothing": END,
    "half a status line": b"HTTP/1.1 20" + END,
    "half a head": OK + b"Content-Length: 2\r\n" + END,
    "half a body": OK + b"Content-Length: 3\r\n\r\n{}" + END,
    "no last chunk": CHUNKED + b"2\r\n{}\r\n" + END,
    "no end of the trailers": CHUNKED + b"2\r\n{}\r\n0\r\nX: y\r\n" + END,
    "only 100": b"HTTP/1.1 100 Continue\r\n\r\n" + END,
    # Too much comes.
    "one byte after it": ANSWER + b"x",
    "an empty line after it": ANSWER + b"\r\n",
    "a second answer": ANSWER + plain(b'{"allowed": true}'),
    "half a second answer": ANSWER + b"HTTP/1.1 200 OK\r\nConte",
    "a 408 after it": ANSWER + plain(b"", "408 Request Timeout"),
    "an empty line after chunks": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n\r\n",
    "empty lines after chunks": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n\r\r\n\r\n",
    "a second answer after chunks": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + ANSWER,
    "a body after 204": b"HTTP/1.1 204 No Content\r\n\r\n{}",
    "a body after 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n{}",
    "a body after an empty one": OK + b"Content-Length: 0\r\n\r\n{}",
    # More than anybody asked for.
    "compressed": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "17 MB": OK + b"Content-Length: 17825792\r\n\r\n" + b" " * 17_825_792,
    "17 MB in chunks": CHUNKED + (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 17 + b"0\r\n\r\n",
    "17 MB until the end": OK + b"\r\n" + b" " * 17_825_792 + END,
}

READ_BY_H11 = frozenset({
    "HTTP/2", "HTTP/0.9", "status 600", "folded line", "control character in a value", "bare LF", "bare LF between two",
    "the same length twice", "204 with a length", "204 with chunks",
    "chunks in HTTP/1.0", "length in a trailer", "length and chunks", "chunks and length",
    "one byte after it", "an empty line after it", "a second answer", "half a second answer", "a 408 after it",
    "an empty line after chunks", "empty lines after chunks", "a second answer after chunks", "a body after 204",
    "a body after 304", "a body after an empty one",
})  # fmt: skip
"""What httpx gives out all the same, as it comes. A client of this package's own never uses that connection again."""


@pytest.mark.parametrize("name", FORBIDDEN)
async def test_forbidden_answer_is_no_answer(connect, request, name):
    """The call fails as one that may have been acted on, and nothing of it is left for the next call."""

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        if connection.server.connections > 1:
            await connection.answer(b'"next"')
            return
        await connection.write(FORBIDDEN[name].removesuffix(END))
        if not FORBIDDEN[name].endswith(END):
            await connection.reader.read()

    kind = request.node.callspec.params["connect"]
    async with serve(handler) as server, connect(server.url, timeout=30) as transport:
        if kind == "httptools" or name not in READ_BY_H11:
            with pytest.raises(NoAnswer) as caught:
                await post(transport)
            assert not caught.value.timed_out
        else:
            assert (await post(transport)).status < 700
        if kind != "httpx_client" or name not in READ_BY_H11:
            assert (await post(transport)).body == b'"next"'
