"""Plans that once showed a violation, each shrunk to what was needed for it."""

import json
from pathlib import Path

import pytest

from simulation.scenario import play
from simulation.story import story

_KEPT = sorted(Path(__file__).parent.joinpath("kept").glob("*.json"))


@pytest.mark.parametrize("path", _KEPT, ids=[path.stem for path in _KEPT])
def test_what_was_once_wrong_stays_right(path):
    """A scenario in which credits were once lost or invented ends with the right books."""
    verdict = play(json.loads(path.read_text())["plan"])
    assert not verdict.found, story(verdict)
