"""Replays recordings of the real Autumn against the emulator and counts what agrees.

`ground_truth/*.json.gz` hold what the real server (API 2.3.0) answered, step by step. Each chain of files is one
organisation, replayed from its first step on an empty emulator. Compared are status, every key and every value.
Ids have to be used consistently (the same recorded id stands for the same id here, every time); times may differ by
`TOLERANCE_MS`, because the recordings do not say when a request was sent.

`scripts/replay_ground_truth.py` prints the counts and what differs.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fastapi_autumn.emulator import EMULATOR_KEY, Emulator, built_in_rates

HERE = Path(__file__).parent / "ground_truth"
TOLERANCE_MS = 10_000

# The files of one organisation, in the order in which they were recorded.
CHAINS = (
    (
        "01_catalog", "02_customers", "03_check", "04_track", "05_locks", "06_errors", "07_events", "08_concurrency",
        "09_ai_credit_system", "11_pro_topup_misc", "12_create_balance_race", "13_no_entitlement_and_lock_ttl",
    ),
    ("10_atmn_push",),
    ("14_catalog_and_lists",),
    ("15_resets_limits_trials_entities",),
    ("16_deviations",),
    ("trace_1",),
    ("trace_2",),
    ("trace_8",),
    ("trace_9_11",),
    ("trace_9_12",),
    ("trace_9_13",),
)  # fmt: skip
FILES = tuple(name for chain in CHAINS for name in chain)

_CACHED = "the real server answered from a cache that did not know of the use before"
_RACE = "a grant erased the use of the second before it: a defect of the real server, and not a goal"
_STAND_IN = "recorded beside a stand-in for Stripe that broke or guessed here"
_FAKE_EVENTS = "the recorded event store is a stand-in that cannot do this"
_NEWER = "accepted here, because the published clients send it"
_FAILS = "the real server fails with 500 where the emulator refuses with 400"
_LOG_IS_LATE = "the recorded event log did not have the newest events yet, two seconds after they had happened"
_PLAN_ORDER = "plans that are bought in packs come in no order that two recordings share"
_ENTITY_TOTALS = "customer-level totals beside entity balances lag at the real server; marked as not a goal"

# What may differ, and why: (file, step) or (file, step, path in the answer).
DEVIATIONS: dict[tuple[Any, ...], str] = {
    **{("11_pro_topup_misc", step): _RACE for step in (23, 36, 38, 39)},
    **{("12_create_balance_race", step): _RACE for wait in range(0, 45, 5) for step in (wait + 3, wait + 4)},
    ("11_pro_topup_misc", 79): _FAILS,
    **{("16_deviations", step): _FAILS for step in (149, 151, 152)},
    **{("trace_9_12", step): _FAILS for step in (93, 361, 383)},
    **{("trace_9_12", step): _LOG_IS_LATE for step in (610, 663, 672)},
    ("trace_9_13", 406): _LOG_IS_LATE,
    **{("trace_9_12", step): _PLAN_ORDER for step in (310, 785)},
    **{("14_catalog_and_lists", step): "the organization has another name here" for step in (0, 1)},
    ("14_catalog_and_lists", 78): _NEWER,
    ("14_catalog_and_lists", 71): _STAND_IN,
    ("15_resets_limits_trials_entities", 49): _CACHED,
    ("15_resets_limits_trials_entities", 70): _CACHED,
    ("07_events", 30): _FAKE_EVENTS,
    **{("trace_9_11", step): _FAKE_EVENTS for step in (27, 204)},
    **{("15_resets_limits_trials_entities", step): _STAND_IN for step in (56, 58, 61)},
    **{("15_resets_limits_trials_entities", step): _ENTITY_TOTALS for step in (66, 69, 71, 72, 73, 75)},
}

# The recorder waited here: milliseconds before a step.
_PAUSES = {("11_pro_topup_misc", 39): 6_000}
_TIMES = re.compile(r"(_at|timestamp|_start|_end|\.start|\.end|period)$")
_ID = re.compile(r"^(cus_ent|cus_prod|ent|pr|evt|cus|roll)_\w+$")
_CURSOR = re.compile(r"\.next_cursor$")
_NEW_TIMES = ("created_at", "started_at", "timestamp")
_HOUR = 3_600_000
_DAY = 24 * _HOUR


@dataclass
class Tally:
    """What was compared in one file, and what did not agree."""

    steps: int = 0
    fields: int = 0
    differing: int = 0
    differences: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)


class Replay:
    """One organisation: an emulator, its clock, and which of its ids stands for which recorded one."""

    def __init__(self, *, timed: bool) -> None:
        self.now = 0
        self.ids: dict[str, str] = {}
        self.emulator = Emulator(":memory:", clock=lambda: self.now, rates=built_in_rates, event_quiet_ms=350 * timed)
        self.started_at = 0
        self.tally = Tally()

    async def run(self, name: str) -> Tally:
        """Replay one file on top of what was replayed before it."""
        self.tally = Tally()
        self.started_at = _start(load(name))
        transport = httpx.ASGITransport(self.emulator)
        async with httpx.AsyncClient(transport=transport, base_url="http://autumn") as client:
            for step in load(name):
                if not step["request"]["path"] or "not ground truth" in (step.get("note") or ""):
                    continue
                await self._prepare(client, name, step)
                self._set_clock(name, step)
                if "concurrent" in step:
                    await self._burst(client, name, step)
                else:
                    await self._step(client, name, step)
        return self.tally

    async def _prepare(self, client: httpx.AsyncClient, name: str, step: dict[str, Any]) -> None:
        """Do what happened between two recorded steps and was left out of the recording."""
        if (name, step["step"]) == ("07_events", 0):
            # The recorder's stand-in for the event store was empty when this file began.
            self.emulator._store.run("DELETE FROM events")
        if (name, step["step"]) == ("08_concurrency", 14):
            lock = {"enabled": True, "lock_id": "same-1"}
            body = {"customer_id": "c8l", "feature_id": "ai_usage", "required_balance": 1, "lock": lock}
            await self._send(client, {"method": "POST", "path": "/v1/balances.check"}, body)
        if name == "11_pro_topup_misc" and step["step"] in (58, 61, 64, 67, 90):
            lock = {"enabled": True, "lock_id": step["request"]["json"]["lock_id"]}
            body = {"customer_id": "p1", "feature_id": "ai_usage", "required_balance": 4, "lock": lock}
            await self._send(client, {"method": "POST", "path": "/v1/balances.check"}, body)
        if (name, step["step"]) == ("11_pro_topup_misc", 78):
            body = {"customer_id": "whoever-was-made-last"}
            await self._send(client, {"method": "POST", "path": "/v1/customers.get_or_create"}, body)

    async def _step(self, client: httpx.AsyncClient, name: str, step: dict[str, Any]) -> None:
        response = await self._send(client, step["request"], self._translate(step["request"].get("json")))
        expected = step["response"]
        actual = {"status": response.status_code}
        wanted = {"status": expected["status"]}
        if expected["json"] is not None:
            wanted["json"] = expected["json"]
            actual["json"] = response.json() if response.content else None
        elif expected.get("text") and expected["status"] != 200:
            wanted["text"], actual["text"] = expected["text"], response.text
        for key in expected.get("headers", {}):
            wanted[key], actual[key] = expected["headers"][key], response.headers.get(key)
        self._compare(name, step, wanted, actual)

    async def _burst(self, client: httpx.AsyncClient, name: str, step: dict[str, Any]) -> None:
        """Send a burst of the same call and compare how many answers there were of each kind."""
        body = step["request"]["json"]
        calls = []
        for number in range(step["concurrent"]):
            mine = json.loads(json.dumps(body).replace("cl-0", f"cl-{number}").replace("c8new0", f"c8new0-{number}"))
            if "cl-9" in str(mine):
                mine["lock_id"] = self.winners[number] if number < len(self.winners) else "none"
            calls.append(self._send(client, step["request"], mine))
        answers = await asyncio.gather(*calls)
        # Which of two refusals somebody gets who comes second (400 or 409) is a matter of microseconds there.
        kinds = Counter((answer.is_success, answer.json().get("allowed", True)) for answer in answers)
        self.winners = [
            json.loads(answer.request.content)["lock"]["lock_id"]
            for answer in answers
            if "lock" in str(answer.request.content) and answer.json().get("allowed")
        ]
        wanted: Counter[tuple[int, bool]] = Counter()
        for text, count in step["outcomes"].items():
            status, allowed = text.strip("()").split(", ")[:2]
            wanted[status == "200", allowed != "False"] += count
        self._compare(
            name, step, {"kinds": sorted(map(str, wanted.items()))}, {"kinds": sorted(map(str, kinds.items()))}
        )

    async def _send(self, client: httpx.AsyncClient, request: dict[str, Any], body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {EMULATOR_KEY}", **request.get("headers", {})}
        key = request.get("auth")
        if key:
            headers["authorization"] = f"Bearer {key}"
        if key == "(none)":
            given = request.get("headers", {}).get("authorization")
            headers["authorization"] = EMULATOR_KEY if given else ""
        if body == "<2MB of properties>":
            body = {"customer_id": "alice", "feature_id": "ai_usage", "properties": {"long": "x" * 2_000_000}}
        content = request["raw"] if "raw" in request else ("" if body is None else json.dumps(body))
        return await client.request(request["method"], request["path"], headers=headers, content=content)

    def _set_clock(self, name: str, step: dict[str, Any]) -> None:
        """Set the time: to `at_s`, or as far as the step tells it by what it creates, or by a lock of an hour."""
        if "at_s" in step:
            self.now = self.started_at + int(step["at_s"] * 1_000)
            return
        pause = _PAUSES.get((name, step["step"]), 30)
        if step["request"]["path"] == "/v1/events.list" and "probe" not in (step.get("note") or ""):
            pause = 1_100
        if step.get("note") == "rate limit probe 0":
            pause = 1_100 + 1_000 - (self.now + 1_100) % 1_000
        self.now += pause
        told = [value for key, value in leaves(step["response"]["json"]) if key.endswith(_NEW_TIMES)]
        lock = (step["request"].get("json") or {}) if isinstance(step["request"].get("json"), dict) else {}
        if isinstance(lock.get("lock"), dict) and lock["lock"].get("expires_at"):
            told.append(lock["lock"]["expires_at"] - _HOUR)
        # What is scheduled starts later, and says nothing about now.
        near = [time for time in told if isinstance(time, int) and (self.now < _DAY or time < self.now + _DAY)]
        self.now = max([self.now, *near])

    def _translate(self, value: Any) -> Any:
        """Put our ids in the place of recorded ones."""
        if isinstance(value, dict):
            return {key: self._translate(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._translate(item) for item in value]
        return self.ids.get(value, value) if isinstance(value, str) else value

    def _compare(self, name: str, step: dict[str, Any], wanted: Any, actual: Any) -> None:
        self.tally.steps += 1
        theirs, ours = dict(leaves(wanted)), dict(leaves(actual))
        for path in [*theirs, *(path for path in ours if path not in theirs)]:
            self.tally.fields += 1
            expected, got = theirs.get(path, "(no such key)"), ours.get(path, "(no such key)")
            if self._agrees(path, expected, got):
                continue
            reason = DEVIATIONS.get((name, step["step"])) or DEVIATIONS.get((name, step["step"], path))
            self.tally.differing += 1
            if reason:
                self.tally.accepted[reason] += 1
                continue
            text = f"{name} step {step['step']} ({step.get('note')}) {path}: recorded {expected!r}, emulator {got!r}"
            self.tally.differences.append(text)

    def _agrees(self, path: str, expected: Any, got: Any) -> bool:
        if expected == got and type(expected) is type(got):
            return True
        if isinstance(expected, str) and isinstance(got, str):
            if path.endswith("payment_url"):
                return True
            if _ID.match(expected) or _CURSOR.search(path):
                return self.ids.setdefault(expected, got) == got
        if isinstance(expected, int | float) and isinstance(got, int | float):
            if isinstance(expected, bool) or isinstance(got, bool):
                return False
            return bool(_TIMES.search(path)) and abs(expected - got) <= TOLERANCE_MS
        return False


def load(name: str) -> list[dict[str, Any]]:
    """Read a recording."""
    steps: list[dict[str, Any]] = json.loads(gzip.decompress((HERE / f"{name}.json.gz").read_bytes()))
    return steps


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """List every value of a JSON document with its path; an empty container counts as a value."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, f"{path}.{key}")]
    if isinstance(value, list) and value:
        return [leaf for number, item in enumerate(value) for leaf in leaves(item, f"{path}[{number}]")]
    return [(path, value)]


def _start(steps: list[dict[str, Any]]) -> int:
    """Find out when a recording began: by the first time it tells, less the seconds since the start where noted."""
    for step in steps:
        for path, value in leaves(step["response"]["json"]):
            if path.endswith(_NEW_TIMES) and isinstance(value, int):
                return value - int(step.get("at_s", 0) * 1_000)
    return 0


async def replay_all() -> dict[str, Tally]:
    """Replay every chain of files."""
    tallies = {}
    for chain in CHAINS:
        # Where the time of every request is known, the event log can be as late as it was.
        replay = Replay(timed=all("at_s" in step for step in load(chain[0])) and chain[0].startswith("trace"))
        for name in chain:
            tallies[name] = await replay.run(name)
        replay.emulator.close()
    return tallies
