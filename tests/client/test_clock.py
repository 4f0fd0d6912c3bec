"""What the client learns about Autumn's clock."""

import sys
import time
from email.utils import formatdate
from typing import Any

import pytest

from fastapi_autumn import AutumnClient, AutumnSettings
from fastapi_autumn._machine import MACHINE
from fastapi_autumn.client._clock import RemoteClock
from fastapi_autumn.errors import Unavailable
from fastapi_autumn.transports import Answer

NOON = 1_800_000_000_000


def at(ms: int) -> str:
    return formatdate(ms // 1000, usegmt=True)


class Distant:
    """A machine and an Autumn on one time line, on which Autumn's clock is `ahead_ms` ahead."""

    def __init__(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms
        self.now = NOON
        self.set_by_ms = 0
        self.back_ms = 30
        self.answer = (200, b'{"list": []}')

    def wall_ms(self) -> int:
        return self.now + self.set_by_ms

    def steady(self) -> float:
        return self.now / 1000

    def uniform(self, low: float, high: float) -> float:
        return low

    def new_id(self) -> str:
        return "0" * 16

    async def request(self, method: str, path: str, **_: Any) -> Answer:
        self.now += 70
        date = at(self.now + self.ahead_ms)
        self.now += self.back_ms
        status, body = self.answer
        return Answer(status, {"date": date}, body)

    async def aclose(self) -> None: ...


def client_of(world: Distant) -> AutumnClient:
    settings = AutumnSettings(_env_file=None, max_retries=0)
    return AutumnClient(settings, transport=world, secret_key="am_sk_test_secret", machine=world)


def error_ms(client: AutumnClient, world: Distant) -> int:
    return abs(client.now_ms() - (world.now + world.ahead_ms))


@pytest.mark.parametrize("ahead_ms", [0, 1_500, -60_000, 3_600_000, -86_400_000 * 400])
async def test_tells_autumns_time_of_day(ahead_ms: int) -> None:
    """Within a second after one answer, within a fifth after many, although the header has whole seconds only."""
    world = Distant(ahead_ms)
    client = client_of(world)
    assert client.now_ms() == world.wall_ms()
    await client.plans.list()
    assert error_ms(client, world) <= 600
    for _ in range(100):
        world.now += 1_377
        await client.plans.list()
    assert error_ms(client, world) <= 200


async def test_follows_a_clock_that_was_set() -> None:
    """After Autumn's clock was set, what was known is about another time, and is dropped at once."""
    world = Distant(0)
    client = client_of(world)
    for _ in range(10):
        world.now += 700
        await client.plans.list()
    world.ahead_ms = 90_000
    await client.plans.list()
    assert error_ms(client, world) <= 600


@pytest.mark.parametrize("by_ms", [-300_000, 300_000])
async def test_goes_on_when_this_machines_clock_is_set(by_ms: int) -> None:
    """Between two answers Autumn's time passes as the steady clock does, whatever happens to the time of day."""
    world = Distant(0)
    client = client_of(world)
    await client.plans.list()
    world.set_by_ms = by_ms
    world.now += 20_000
    assert error_ms(client, world) <= 600


async def test_an_answer_that_took_long_tells_little() -> None:
    """A machine that stood still while an answer waited does not know when it was dated."""
    world = Distant(0)
    client = client_of(world)
    await client.plans.list()
    known = error_ms(client, world)
    world.back_ms = 100_000
    await client.plans.list()
    assert error_ms(client, world) == known


@pytest.mark.parametrize("status", [302, 403, 503])
async def test_a_stranger_does_not_tell_the_time(status: int) -> None:
    """Whoever answers instead of Autumn may have any clock."""
    world = Distant(0)
    client = client_of(world)
    await client.plans.list()
    known = error_ms(client, world)
    world.answer, world.ahead_ms = (status, b"<html>"), 3_600_000
    with pytest.raises(Unavailable):
        await client.plans.list()
    world.ahead_ms = 0
    assert error_ms(client, world) == known


@pytest.mark.parametrize(
    "date", [None, "", "soon", "Wed, 99 Foo 2026 07:28:00 GMT", "Wed, 21 Oct 99999999 07:28:00 GMT"]
)
def test_ignores_what_is_no_date(date: str | None) -> None:
    """A proxy may leave the header out or break it; what was known stays."""
    world = Distant(0)
    clock = RemoteClock(world)
    clock.learn(at(NOON + 10_000), sent=world.steady())
    clock.learn(date, sent=world.steady())
    clock.learn(date, sent=world.steady())
    assert clock.now_ms() == NOON + 10_500


def test_sleeping_counts() -> None:
    """Others did not sleep: a worker that slept for longer than a lease must not believe that it shows life."""
    clock = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC
    before = time.clock_gettime(clock)
    assert before <= MACHINE.steady() <= time.clock_gettime(clock)
