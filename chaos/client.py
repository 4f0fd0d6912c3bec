"""One call of a customer, over a connection of its own, as seen from outside."""

import asyncio
import json
import random
import time
from dataclasses import dataclass

from chaos.settings import MODELS

HOWS = {"ok": 60, "raises": 10, "answers 502": 8, "breaks": 10, "leaves early": 4, "leaves midway": 8}
PATIENCE_SECONDS = 30


@dataclass(slots=True)
class Call:
    """What was asked for, and what came back."""

    number: int
    customer: str
    model: str
    how: str
    streams: bool
    status: int | None = None
    complete: bool = False
    left: bool = False
    """The customer did not wait for the end."""
    worker: int | None = None
    ended_at: float = 0.0

    @classmethod
    def at_random(cls, number: int, customers: int, chance: random.Random) -> "Call":
        how = chance.choices(list(HOWS), list(HOWS.values()))[0]
        streams = how in {"breaks", "leaves midway"} or (how in {"ok", "leaves early"} and chance.random() < 0.5)
        return cls(number, f"customer-{chance.randrange(customers)}", chance.choice(MODELS), how, streams)

    async def make(self, port: int) -> None:
        """Make the call; what goes wrong on the way is seen in the fields."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._exchange(port)
        except TimeoutError:
            self.left = True
        except (OSError, EOFError):
            pass
        self.ended_at = time.time()

    async def _exchange(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            body = json.dumps({"model": self.model, "how": self.how})
            writer.write(
                f"POST /ai/{'stream' if self.streams else 'plain'} HTTP/1.1\r\nhost: service\r\nconnection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"x-user: {self.customer}\r\nx-call: {self.number}\r\n\r\n{body}".encode()
            )
            if self.how == "leaves early":
                await asyncio.sleep(random.uniform(0, 0.03))
                self.left = True
                return
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            self.worker = int(headers["x-worker"]) if "x-worker" in headers else None
            self.status = int(head.split(" ", 2)[1])
            if self.how == "leaves midway" and self.status == 200:
                await reader.read(1)
                self.left = True
                return
            content = await reader.read()
            if "content-length" in headers:
                self.complete = len(content) == int(headers["content-length"])
            else:
                self.complete = content.endswith(b"0\r\n\r\n")
        finally:
            writer.transport.abort()

    @property
    def has_failed(self) -> bool:
        """Whether the customer waited in vain, so that it must not cost anything."""
        return not self.left and not self.has_succeeded

    @property
    def has_succeeded(self) -> bool:
        """Whether the customer got it, so that it has to be paid unless its worker was killed at once."""
        return self.status == 200 and (self.complete or self.how == "leaves midway")
