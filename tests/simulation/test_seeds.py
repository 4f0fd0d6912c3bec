"""Two thousand scenarios of the lean layer and a hundred and fifty of the full one, from `SIMULATION_SEED` on.

`tests/conftest.py` says where that is and prints it. `make simulate` plays as many new ones as there is time for.
"""

import os

import pytest

from simulation.plan import generate
from simulation.scenario import play
from simulation.shrink import same_violation, shrink
from simulation.story import story

_FIRST = int(os.environ["SIMULATION_SEED"])
_LEAN, _FULL, _SQL = 2000, 150, 4
_AT_ONCE = {"lean": 100, "full": 15}


def _audit(seeds, *, layer, store="memory"):
    for seed in seeds:
        plan = generate(seed, layer=layer) | {"store": store}
        found = play(plan).found
        if found:
            has = same_violation(found[0])
            small = shrink(plan, lambda candidate, has=has: has(play(candidate).found), attempts=60)
            pytest.fail(f"seed {seed} of the {layer} layer (store: {store}), shrunk:\n{story(play(small))}")


def _part(layer, part):
    first = _FIRST + part * _AT_ONCE[layer]
    return range(first, first + _AT_ONCE[layer])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_LEAN // _AT_ONCE["lean"]))
def test_no_credit_is_lost_or_invented_in_the_lean_layer(part):
    """A hundred scenarios of charges, settlement, sender and client among faults end with the right books."""
    _audit(_part("lean", part), layer="lean")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_FULL // _AT_ONCE["full"]))
def test_no_credit_is_lost_or_invented_in_the_full_layer(part):
    """Fifteen scenarios of the whole package, with FastAPI and the emulator, end with the right books."""
    _audit(_part("full", part), layer="full")


@pytest.mark.slow
def test_no_credit_is_lost_or_invented_on_a_real_database():
    """Scenarios on SQLAlchemy and SQLite end with the right books."""
    _audit(range(_FIRST, _FIRST + _SQL), layer="full", store="sql")
