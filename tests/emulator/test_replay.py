"""The emulator against what the real Autumn answered."""

import asyncio
from itertools import chain

import pytest

from emulator.replay import DEVIATIONS, FILES, Tally, replay_all


@pytest.fixture(scope="module")
def tallies() -> dict[str, Tally]:
    return asyncio.run(replay_all())


@pytest.mark.parametrize("name", FILES)
def test_a_recording_is_answered_alike(name, tallies):
    """Every step of a recording gets the same status, keys and values, but for the deviations listed with reasons."""
    assert tallies[name].steps > 0
    assert tallies[name].differences == []


def test_nearly_every_field_agrees(tallies):
    """At least 99.5 % of all fields agree, the accepted deviations counted as differences."""
    fields = sum(tally.fields for tally in tallies.values())
    differing = sum(tally.differing for tally in tallies.values())
    assert fields > 126_000
    assert differing / fields < 0.005


def test_no_deviation_is_listed_in_vain(tallies):
    """Each reason on the list still explains a difference, so the list cannot outlive its causes."""
    reasons = set(chain.from_iterable(tally.accepted for tally in tallies.values()))
    assert reasons == set(DEVIATIONS.values())
