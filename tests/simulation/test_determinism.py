"""One seed decides everything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.plan import generate
from simulation.scenario import play
from simulation.world import World

_SEEDS = range(40, 52)
_PROGRAM = """
from simulation.plan import generate
from simulation.scenario import play
print(*(play(generate(seed)).digest for seed in range({first}, {end})))
"""


def _in_another_process(hash_seed: int) -> list[str]:
    tests = Path(__file__).parents[1]
    program = _PROGRAM.format(first=_SEEDS.start, end=_SEEDS.stop)
    environment = {**os.environ, "PYTHONPATH": str(tests), "PYTHONHASHSEED": str(hash_seed)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.slow
def test_a_seed_tells_the_same_story_in_every_process():
    """The same seeds give the same digests in two processes whose sets and dictionaries hash differently."""
    assert _in_another_process(1) == _in_another_process(2) == [play(generate(seed)).digest for seed in _SEEDS]


def test_another_seed_tells_another_story():
    """A digest depends on the seed."""
    assert len({play(generate(seed)).digest for seed in range(3)}) == 3


def test_a_draw_depends_on_what_it_is_for_alone():
    """Taking one fault out of a plan leaves every other draw as it was."""
    one, other = World(7), World(7)
    other.unit("something", "else")
    assert one.unit("a", 1) == other.unit("a", 1) != World(8).unit("a", 1)
