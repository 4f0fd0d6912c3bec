"""Which calls a killed worker had no time to write down, and how much time that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.client import Call
from chaos.settings import AWAY, COMMITS, ENDED, reported

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Moments:
    """What the processes of a run reported about commits and deaths, in seconds since 1970."""

    committed: dict[int, float]
    """When the first commit after a call's end was done."""
    killed: dict[int, float]
    stopped: dict[int, Span]
    """When a worker was told to stop, and when it had."""
    away: dict[int, list[Span]]
    """When a worker was paused, or could not reach the database."""
    outages: list[Span]
    """When nobody could."""

    @classmethod
    def of(cls, folder: Path, outages: Sequence[Span]) -> "Moments":
        committed: dict[int, float] = {}
        for _, *numbers, at in reported(folder, COMMITS):
            for number in numbers:
                committed.setdefault(int(number), float(at))
        away: dict[int, list[Span]] = {}
        for worker, _, began, ended in reported(folder, AWAY):
            away.setdefault(int(worker), []).append((float(began), float(ended)))
        ends = [(int(worker), how, float(since), float(at)) for worker, how, since, at in reported(folder, ENDED)]
        return cls(
            committed,
            {worker: since for worker, how, since, _ in ends if how == "killed"},
            {worker: (since, at) for worker, how, since, at in ends if how == "stopped"},
            away,
            list(outages),
        )

    def is_excused(self, call: Call) -> bool:
        """Whether the call's worker was killed after the call and before the next commit."""
        return call.number not in self.committed and call.worker in self.killed

    def wait(self, call: Call) -> float:
        """How long the call had to wait for the commit after it, or had waited when its worker was killed.

        The time in which there could not be a commit does not count.
        """
        assert call.worker is not None
        until = self.committed.get(call.number) or self.killed[call.worker]
        spans = sorted([*self.outages, *self.away.get(call.worker, ())])
        waited, at = 0.0, call.ended_at
        for began, ended in spans:
            waited += max(0.0, min(began, until) - at)
            at = max(at, min(ended, until))
        return waited + max(0.0, until - at)
