"""Faults on demand: what a client has to live with, switched on from a test, a demo or another process."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from fastapi_autumn.emulator.http._store import Store

FaultKind: TypeAlias = Literal[
    "fail", "delay", "late", "drop", "reset", "refuse", "unverified", "slow", "stall", "crash"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to misbehave, and how often.

    `kind` is one of

    - `fail`: nothing is done; the answer is `status` (with `retry_after` seconds in its header, if given);
    - `delay`: waits `delay_ms`, then does the work and answers;
    - `late`: does the work, waits `delay_ms`, then answers;
    - `drop`: does the work, then the connection breaks without an answer;
    - `reset`: the connection breaks before the work;
    - `refuse`: as if nothing listened; over a socket, where something does listen, the same as `reset`;
    - `unverified`: 202 with `allowed: true` and no balance, Autumn's way to fail open. The work is done only with
      `works=True`.

    Three begin the work, which claims the call's idempotency key, and go on after `delay_ms`. Whoever repeats the call
    meanwhile gets a 409, and does not know how the first one will end:

    - `slow`: does the work and answers;
    - `stall`: fails with `status`; nothing is done, and the key is free again;
    - `crash`: the server dies: nothing is done, the key stays claimed, and the connection breaks.

    `times` is how many calls it hits (None: all), `probability` how likely it hits each one; with a `seed` the
    sequence is the same every time.
    """

    kind: FaultKind
    times: int | None = None
    probability: float = 1.0
    seed: int | None = None
    status: int = 503
    retry_after: int | None = None
    delay_ms: int = 0
    works: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"unknown kind of fault: {self.kind!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, not {self.probability}")


class Faults:
    """The faults that are switched on. They live in the emulator's file, so all its workers share them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revision = -1
        self._active: list[tuple[int, str, Fault, random.Random | None]] = []

    def add(self, operation: str, fault: Fault) -> None:
        """Switch a fault on for an operation, such as `balances.check`, or for all of them with `*`."""
        document = json.dumps({"operation": operation, "fault": asdict(fault)})
        with self._store.transaction():
            self._store.insert("INSERT INTO faults (doc, times) VALUES (?, ?)", document, fault.times)
            self._store.touch("faults")

    def clear(self) -> None:
        """Switch all faults off, and forget the counts."""
        with self._store.transaction():
            self._store.run("DELETE FROM faults")
            self._store.run("DELETE FROM fault_counts")
            self._store.touch("faults")

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each kind of fault has hit."""
        return dict(self._store.rows("SELECT kind, count FROM fault_counts ORDER BY kind"))

    @property
    def active(self) -> list[dict[str, Any]]:
        """The faults that are switched on, with the hits that are left of each."""
        rows = self._store.rows("SELECT doc, times FROM faults ORDER BY seq")
        return [json.loads(document) | {"left": left} for document, left in rows]

    def hit(self, operation: str, revision: int) -> Fault | None:
        """Return the fault that hits this call, if any, and count it. Costs nothing while none is switched on."""
        if revision != self._revision:
            self._load(revision)
        for number, target, fault, generator in self._active:
            if target not in ("*", operation):
                continue
            if fault.probability < 1 and self._draw(generator) >= fault.probability:
                continue
            if self._count(number, fault):
                return fault
        return None

    def _load(self, revision: int) -> None:
        known = {number: generator for number, _, _, generator in self._active}
        self._active = []
        for number, document in self._store.rows("SELECT seq, doc FROM faults ORDER BY seq"):
            entry = json.loads(document)
            fault = Fault(**entry["fault"])
            seeded = None if fault.seed is None else random.Random(fault.seed)  # noqa: S311 - it picks calls
            generator = known.get(number) or seeded
            self._active.append((number, entry["operation"], fault, generator))
        self._revision = revision

    def _draw(self, generator: random.Random | None) -> float:
        return self._store.machine.uniform(0, 1) if generator is None else generator.random()

    def _count(self, number: int, fault: Fault) -> bool:
        """Use up one hit; False if another worker took the last one."""
        with self._store.transaction():
            if fault.times is not None:
                left = self._store.run("UPDATE faults SET times = times - 1 WHERE seq = ? AND times > 0", number)
                if not left:
                    return False
            self._store.run(
                "INSERT INTO fault_counts VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET count = count + 1", fault.kind
            )
        return True
