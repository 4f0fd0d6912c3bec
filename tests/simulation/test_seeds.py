"""The same seeds in every run, so that a run of the tests says something about the change and not about luck.

About one new scenario of the lean layer in six hundred still finds something rare (see `docs/simulation.md`). Until
that ends, new seeds are played by `make simulate`, or here with `SIMULATION_SEED=new`. Any other number begins there.
"""

import os
import secrets

import pytest

from simulation.plan import generate
from simulation.scenario import play
from simulation.shrink import same_violation, shrink
from simulation.story import story

_SEED = os.environ.get("SIMULATION_SEED", "900000")
_FIRST = secrets.randbelow(10**9) if _SEED == "new" else int(_SEED)
_LEAN, _FULL, _SQL = 500, 40, 4
_AT_ONCE = 50


def _audit(seeds, *, layer, store="memory"):
    for seed in seeds:
        plan = generate(seed, layer=layer) | {"store": store}
        found = play(plan).found
        if found:
            has = same_violation(found[0])
            small = shrink(plan, lambda candidate, has=has: has(play(candidate).found), attempts=60)
            pytest.fail(f"seed {seed} of the {layer} layer (store: {store}), shrunk:\n{story(play(small))}")


def _first(layer, part):
    return _FIRST + part * _AT_ONCE + {"lean": 0, "full": 10**6, "sql": 2 * 10**6}[layer]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_LEAN // _AT_ONCE))
def test_no_credit_is_lost_or_invented_in_the_lean_layer(part, record_property):
    """Fifty scenarios of charges, settlement, sender and client among faults end with the right books."""
    first = _first("lean", part)
    record_property("first_seed", first)
    _audit(range(first, first + _AT_ONCE), layer="lean")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_FULL // 10))
def test_no_credit_is_lost_or_invented_in_the_full_layer(part, record_property):
    """Ten scenarios of the whole package, with FastAPI and the emulator, end with the right books."""
    first = _first("full", part)
    record_property("first_seed", first)
    _audit(range(first, first + 10), layer="full")


@pytest.mark.slow
def test_no_credit_is_lost_or_invented_on_a_real_database():
    """Scenarios on SQLAlchemy and SQLite end with the right books."""
    first = _first("sql", 0)
    _audit(range(first, first + _SQL), layer="full", store="sql")
