"""What the client learns about Autumn's clock."""

from email.utils import formatdate
from typing import Any

import pytest

from fastapi_autumn import AutumnClient, AutumnSettings
from fastapi_autumn.client._clock import RemoteClock
from fastapi_autumn.transports import Answer

NOON = 1_800_000_000_000


def at(ms: int) -> str:
    return formatdate(ms // 1000, usegmt=True)


class Distant:
    """A machine and an Autumn on one time line, on which Autumn's clock is `ahead_ms` ahead."""

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms
        self.now = NOON

    def wall_ms(self) -> int:
        return self.now

    def steady(self) -> float:
        return self.now / 1000

    def uniform(self, low: float, high: float) -> float:
        return low

    def new_id(self) -> str:
        return "0" * 16

    async def request(self, method: str, path: str, **_: Any) -> Answer:
        self.now += 70
        date = at(self.now + self.ahead_ms)
        self.now += 30
        return Answer(200, {"date": date}, b'{"list": []}')

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("ahead_ms", [0, 1_500, -60_000, 3_600_000, -86_400_000 * 400])
async def test_tells_how_far_autumns_clock_is_ahead(ahead_ms: int) -> None:
    """Within a second after one answer, within a fifth after many, although the header has whole seconds only."""
    world = Distant(ahead_ms)
    client = AutumnClient(
        AutumnSettings(_env_file=None), transport=world, secret_key="am_sk_test_secret", machine=world
    )
    assert client.clock_offset_ms == 0
    await client.plans.list()
    assert abs(client.clock_offset_ms - ahead_ms) <= 600
    for _ in range(100):
        world.now += 1_377
        await client.plans.list()
    assert abs(client.clock_offset_ms - ahead_ms) <= 200
    assert abs(client.now_ms() - (world.now + ahead_ms)) <= 200


async def test_follows_a_clock_that_was_set() -> None:
    """After a jump the old offset is about another time, and is dropped at once."""
    world = Distant(0)
    client = AutumnClient(
        AutumnSettings(_env_file=None), transport=world, secret_key="am_sk_test_secret", machine=world
    )
    for _ in range(10):
        world.now += 700
        await client.plans.list()
    world.ahead_ms = 90_000
    await client.plans.list()
    assert abs(client.clock_offset_ms - 90_000) <= 600


@pytest.mark.parametrize(
    "date", [None, "", "soon", "Wed, 99 Foo 2026 07:28:00 GMT", "Wed, 21 Oct 99999999 07:28:00 GMT"]
)
def test_ignores_what_is_no_date(date: str | None) -> None:
    """A proxy may leave the header out or break it; what was known stays."""
    clock = RemoteClock()
    clock.learn(at(NOON + 10_000), sent_ms=NOON, received_ms=NOON)
    known = clock.offset_ms
    clock.learn(date, sent_ms=NOON, received_ms=NOON)
    clock.learn(date, sent_ms=NOON, received_ms=NOON)
    assert clock.offset_ms == known
    assert known == 10_500
