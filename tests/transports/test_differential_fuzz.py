"""The reader of answers against h11: what h11 refuses, it refuses, and what both accept they read alike.

`python tests/transports/test_differential_fuzz.py 200000 [SEED]` goes on for as long as you like.
"""

import random
import secrets
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

import h11

from fastapi_autumn.transports._reader import AnswerReader, MalformedAnswer

WHOLE = [
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\nX-A:  b c \r\n\r\n{"allowed":1}',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\nX-T: 1\r\nY: 3\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nRetry-After: 2\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 500 \r\nTransfer-Encoding: Chunked\r\nConnection: Close, x\r\n\r\n0\r\n\r\n",
]
PIECES = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\x7f", b"\xff", b"\x0b", b"0", b"1", b"5", b"-", b"+"),
    *(b",", b";", b"HTTP/1.1 ", b"HTTP/2.0 ", b"HTTP/1.2 ", b"101 ", b"099 ", b"204 ", b"\r\n\r\n", b"0\r\n\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 13\r\n", b"Content-Length: 3, 3\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(b"Transfer-Encoding:\x0bchunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b" folded\r\n"),
    *(b"Connection: upgrade\r\nUpgrade: x\r\n", b"\r\n folded", b"X-T: 1\r\n", b"g\r\n", b"5\r\nhello\r\n"),
    b"ffffffffffffffff\r\n",
]


class Reading(NamedTuple):
    """What was made of a stream: everything that an answer consists of."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_reusable: bool


def read_ours(parts: list[bytes]) -> Reading | None:
    """Read a stream that ends after these parts; None is a refusal."""
    reader = AnswerReader()
    try:
        for part in parts:
            reader.feed(part)
        if reader.answer is None:
            reader.end()
    except MalformedAnswer:
        return None
    assert reader.answer is not None
    status, headers, body = reader.answer
    return Reading(status, _comparable(headers.items()), body, reader.is_reusable)


def read_by_h11(stream: bytes) -> Reading | None:
    """Do the same with h11; bytes that are left over are a refusal too."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(stream)
    response, body, has_ended = None, b"", False
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif event is h11.NEED_DATA and not has_ended:
                connection.receive_data(b"")
                has_ended = True
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    if connection.trailing_data[0]:
        return None
    assert response is not None
    pairs = ((name.decode(), value.decode("latin-1")) for name, value in response.headers)
    is_reusable = connection.our_state is h11.DONE and connection.their_state is h11.DONE
    return Reading(response.status_code, _comparable(pairs), body, is_reusable)


def _comparable(pairs: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    # h11 gives this one out in lower case.
    headers.pop("transfer-encoding", None)
    return headers


def mutated(rng: random.Random) -> bytes:
    """Return an answer with a few things wrong, or noise."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(80))
    stream = bytearray(rng.choice(WHOLE))
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        at = rng.randrange(len(stream) + 1)
        match rng.randrange(7):
            case 0:
                stream[at:at] = rng.choice(PIECES)
            case 1:
                del stream[at : at + rng.choice([1, 1, 2, 4, 9])]
            case 2:
                stream[at : at + 1] = rng.randbytes(1)
            case 3:
                stream[at : at + 1] = bytes([rng.choice(b"\r\n\t :,;0159aAHT")])
            case 4:
                line = stream.find(b"\r\n", at)
                stream[line + 2 : line + 2] = rng.choice(PIECES)
            case 5:
                stream += rng.choice([*PIECES, *WHOLE])
            case _:
                lines = bytes(stream).split(b"\r\n")
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
                stream = bytearray(b"\r\n".join(lines))
    return bytes(stream)


def cut(rng: random.Random, stream: bytes) -> list[bytes]:
    """Cut a stream as a network may."""
    if rng.random() < 0.1:
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(5)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) if start < end]


def compare(number: int, seed: int) -> Counter[str]:
    """Compare so many streams; AssertionError shows the first on which the two do not agree."""
    rng = random.Random(seed)  # noqa: S311 - to be repeated
    seen: Counter[str] = Counter()
    for _ in range(number):
        stream = mutated(rng)
        parts = cut(rng, stream)
        ours, theirs = read_ours(parts), read_by_h11(stream)
        assert ours == read_ours([stream]), f"seed {seed}: the cuts matter: {parts}"
        if ours is not None:
            assert theirs is not None, f"seed {seed}: h11 refuses what was accepted: {stream!r}"
            assert ours[:3] == theirs[:3], f"seed {seed}: read in two ways: {stream!r}\n{ours}\n{theirs}"
            assert theirs.is_reusable or not ours.is_reusable, f"seed {seed}: only h11 lets go: {stream!r}"
        seen["both accept" if ours else "only h11 accepts" if theirs else "both refuse"] += 1
    return seen


def test_h11_and_this_package_read_alike():
    """5,000 streams, another seed every time; whole ones have to be read, or refusing would be no art."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown with a failure
    seen = compare(5000, seed)
    print(seen)  # noqa: T201 - as above
    assert seen["both accept"] > 500
    assert seen["both refuse"] > 500


def test_whole_answers_are_read():
    """None of the answers that the mutations begin with is refused, however it is cut."""
    for stream in WHOLE:
        reading, theirs = read_ours([stream]), read_by_h11(stream)
        assert reading is not None
        assert theirs is not None
        assert reading[:3] == theirs[:3]
        for at in range(1, len(stream)):
            assert read_ours([stream[:at], stream[at:]]) == reading


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else secrets.randbelow(2**32)
    begun = time.monotonic()
    counted = dict(compare(int(sys.argv[1]), chosen))
    print(f"seed {chosen}", counted, f"{time.monotonic() - begun:.0f} s")  # noqa: T201 - run by hand
