"""What an error tracker with its default options would send has no key in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sentry_program.py")


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["httptools", "httpx", "httpx_client"])
def test_the_live_key_is_in_nothing_that_sentry_would_send(transport):
    """Of no way of failing, although Sentry collects the local variables of every frame."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["AUTUMN_SECRET_KEY"] = "am_sk_live_thisMustNeverBeSeen"
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), transport], check=False, capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    events = ran.stdout.splitlines()

    assert "inALocalVariable" in events[0]  # local variables are collected
    assert len(events) >= 28
    assert not [event for event in events if "thisMustNeverBeSeen" in event]
    assert sum('"vars"' in event for event in events) > 20
