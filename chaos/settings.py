"""What the processes of a run agree on: prices, time scales, and the files through which they report."""

import os
import time
from pathlib import Path

PRICES = {"small": 1, "large": 5, "fraction": "0.1"}
MODELS = sorted(PRICES)

CATALOG = {
    "features": [
        {"feature_id": "ai_usage", "name": "AI usage", "type": "metered", "consumable": True},
    ],
    "plans": [
        {
            "plan_id": "free",
            "name": "Free",
            "auto_enable": True,
            "items": [{"feature_id": "ai_usage", "included": 1_000_000, "reset": {"interval": "year"}}],
        }
    ],
}

# Scaled down from 30 s, 120 s and 5 s, so that a run sees many deaths and recoveries.
LEASE = 2.0
EVENT_DELAY = 3.0
TIMEOUT = 1.0
HOLD_TTL = 3600.0
SHUTDOWN_TIMEOUT = 5.0

SILENCE = LEASE + TIMEOUT + EVENT_DELAY
"""After so long others take a worker for dead."""
LOG_LAG = (0.2, 1.2)
"""How far Autumn's event log is behind. What begins late, because its answer does, has to show within the delay too."""
LATE_MS = 1200
"""Later than the time-out."""

# The files. Each line ends with the time of its writing.
AWAY = "away"  # pid, why, from when
COMMITS = "commits"  # pid, numbers of the calls that had ended before
COUNTS = "counts"  # name
ENDED = "ended"  # pid, how, from when
LOG = "log"  # pid, message


def report(folder: Path, file: str, *words: object) -> None:
    """Append a line. One small write to a file opened for appending is whole, even next to a SIGKILL."""
    line = " ".join(map(str, [*words, f"{time.time():.3f}"])) + "\n"
    descriptor = os.open(folder / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def reported(folder: Path, file: str) -> list[list[str]]:
    path = folder / file
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
