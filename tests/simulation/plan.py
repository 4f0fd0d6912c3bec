"""What happens in one scenario, as data: workers, calls, faults. Drawn from a seed, shrunk, kept in JSON.

Every fault stands for itself, so that taking one away leaves the others what they were.
"""

import random
from typing import Any

from simulation.application import PRICES
from simulation.metering import draw_metered
from simulation.network import FAULTS

__all__ = ["Plan", "generate"]

Plan = dict[str, Any]

_SETTLING = ["0.5", "0", "2", "7.25"]
_QUOTIENTS = ["1/3", "1/7"]


def generate(seed: int, *, layer: str = "full") -> Plan:
    """Draw a plan. Rare things are common in it: most plans have a theme or two, and all else is quiet.

    The same seed gives different plans in the two layers.
    """
    draw = random.Random(f"{layer} {seed}" if layer != "full" else seed)  # noqa: S311 - the same seed has to give the same plan
    count = draw.randint(20, 40) if layer == "lean" else draw.randint(12, 40)
    span = draw.choice([3.0, 8.0, 15.0, 40.0] if layer == "lean" else [5.0, 20.0, 40.0, 90.0])
    workers = draw.choice([1, 1, 2, 2, 3, 4])
    hold = draw.choice([0.0, 0.0, 0.3, 1.0])
    plan: Plan = {
        "seed": seed,
        "workers": [{"start": round(draw.uniform(0, 0.05), 4)} for _ in range(workers)],
        "layer": layer,
        "store": "memory",
        "policy": draw.choice(["deny", "deny", "deny", "allow"]),
        "calls": [],
        "net": [],
        "weather": [],
        "db": [],
        "db_weather": [],
        "world": [],
        "log": {"delay": draw.choice([0.02, 0.5, 3.0, 8.0])},
        "end": span + 10.0,
    }
    possible = [name for name in _THEMES if layer == "full" or name not in _FULL_ONLY]
    drawn = draw.choices(possible, [_THEMES[name][1] for name in possible], k=draw.choice([0, 1, 2, 2, 3, 3]))
    themes = list(dict.fromkeys(drawn))
    plan["themes"] = themes
    style = {
        "hold": hold,
        "wild": draw.random() < 0.35,
        "customers": draw.choice([1, 3, 3, 15]),
        "scarce": draw.choice([0.0, 0.0, 0.3, 1.0]),
    }
    for number in range(count):
        plan["calls"].append(_call(draw, number, span, **style))
    for theme in themes:
        _THEMES[theme][0](draw, plan, span)
    if layer == "lean":
        draw_metered(seed, plan)
    return plan


def _call(
    draw: random.Random,
    number: int,
    span: float,
    *,
    hold: float = 0.0,
    wild: bool = False,
    customers: int = 3,
    scarce: float = 0.0,
) -> dict[str, Any]:
    route = draw.choice(["chat"] * 7 + ["stream"] * 4 + ["sync", "path", "named"])
    if wild and draw.random() < 0.3:
        route = draw.choice(["task", "yield", "inner", "unread", "door", "events", "file"])
    client: dict[str, Any] = {"spec": draw.choice(["2.3", "2.4"])}
    script: list[Any] = [["sleep", round(draw.choice([0.0, 0.02, 0.3, 1.5]) * draw.uniform(0.3, 1), 4)]]
    streams = route in ("stream", "unread", "events", "door")
    if streams:
        for _ in range(draw.randint(1, 4)):
            script += [["word"], ["sleep", round(draw.uniform(0.01, 0.5), 4)]]
    if draw.random() < 0.25:
        script.insert(
            draw.randrange(len(script) + 1), ["settle", draw.choice(_SETTLING + (_QUOTIENTS if wild else []))]
        )
    if draw.random() < 0.1:
        script.insert(draw.randrange(len(script) + 1), [draw.choice(["refund", "keep"])])
    ends = draw.random()
    if ends < 0.16:
        script.append(["raise"])
    elif ends < 0.24 and not streams:
        script.append(draw.choice([["http", 502], ["http", 400], ["status", 500], ["timeout", 0.05]]))
    if wild and draw.random() < 0.2:
        client["leaves"] = round(draw.choice([0.005, 0.05, 0.3, 1.0]) * draw.uniform(0.2, 2), 4)
        if draw.random() < 0.2:
            client["cancels"] = True
    if wild and draw.random() < 0.1:
        client["slow"] = round(draw.uniform(0.05, 0.6), 3)
    if route == "unread" and draw.random() < 0.5:
        client["junk"] = draw.choice([1, 2, 4])
    if route == "file" and draw.random() < 0.5:
        client["sends_paths"] = True
    return {
        "n": number,
        "at": round(draw.uniform(0.5, span), 4),
        "customer": f"c{draw.randrange(customers)}",
        "feature": "scarce" if draw.random() < scarce else "plenty",
        "route": route,
        "model": draw.choice(list(PRICES)),
        "charging": "hold" if draw.random() < hold else "deduct",
        "script": script,
        "client": client,
    }


# Themes.


def _aimed(draw: random.Random, plan: Plan, span: float) -> None:
    """Some requests meet a fault each; one kind of fault is the most common."""
    favourite = draw.choice(list(FAULTS))
    for _ in range(draw.randint(3, 16)):
        what = favourite if draw.random() < 0.5 else draw.choice(list(FAULTS))
        call = draw.choice(plan["calls"])
        settles = any(step[0] not in ("sleep", "word", "keep") for step in call["script"])
        at_the_end = "finalize" if call["charging"] == "hold" else "track"
        kind = draw.choice(
            ["check", "check", at_the_end, at_the_end if settles else "check", "seal", "customer", "events"]
        )
        fault: dict[str, Any] = {"fault": what, "op": kind}
        if kind == "events":
            fault |= {"at": round(draw.uniform(0, span + 200), 3)}
        else:
            fault |= {"call": call["n"], "nth": draw.choice([1, 1, 1, 2])}
        if what in ("late", "slow_answer", "slow_work", "late_failure", "late_500", "again", "202_work"):
            fault["d"] = round(draw.choice([0.5, 3.0, 6.0, 12.0, 40.0, 90.0]) * draw.uniform(0.5, 1.2), 3)
            # Nobody works on a request for longer than the log is waited for. It may be on its way for longer, but not
            # so long that a hold has ended before it begins, or that its sender was given up for dead and looked for.
            longest = {"late": (55.0, 110.0), "again": (55.0, 110.0)}.get(what, (38.0, 110.0))
            fault["d"] = min(fault["d"], longest[plan["layer"] == "full"])
        plan["net"].append(fault)


def _weather(draw: random.Random, plan: Plan, span: float) -> None:
    """For a while, many requests meet the same fault."""
    for _ in range(draw.randint(1, 2)):
        what = draw.choice([f for f in FAULTS if f != "again"])
        fault = {
            "fault": what,
            "op": draw.choice([None, None, "check", "track", "finalize", "customer", "events"]),
            "worker": draw.choice([None, draw.randrange(len(plan["workers"]))]),
            "at": round(draw.uniform(0, span), 3),
            "for": round(draw.choice([0.05, 3.0, 20.0, 60.0]) * draw.uniform(0.5, 1.2), 3),
            "p": draw.choice([0.05, 0.3, 1.0]),
            "d": round(draw.choice([0.5, 3.0, 6.0, 12.0]) * draw.uniform(0.5, 1.2), 3),
        }
        plan["weather"].append(fault)


def _commits(draw: random.Random, plan: Plan, span: float) -> None:
    """Single commits go wrong."""
    for _ in range(draw.randint(1, 5)):
        fault = draw.choice(["lost_commit", "commit_answer_lost"])
        worker = draw.randrange(len(plan["workers"]))
        plan["db"].append({"fault": fault, "worker": worker, "at": round(draw.uniform(0, span + 100), 3)})


def _database(draw: random.Random, plan: Plan, span: float) -> None:
    """The database is slow, locked, or away for one worker or all."""
    if len(plan["workers"]) == 1 and draw.random() < 0.5:
        plan["workers"].append({"start": 0.02})
    if len(plan["workers"]) > 1 and draw.random() < 0.25:
        _sever(draw, plan)
        return
    for _ in range(draw.randint(1, 2)):
        what = draw.choice(["cut", "cut", "locked", "slow"])
        window = {
            "fault": what,
            "worker": draw.choice([None, *range(len(plan["workers"]))]) if what != "locked" else None,
            "at": round(draw.uniform(0.5, span), 3),
            "for": round(draw.choice([3.0, 15.0, 50.0, 130.0]) * draw.uniform(0.5, 1.2), 3),
            "d": round(draw.uniform(0.05, 1.0), 3),
        }
        plan["db_weather"].append(window)
        if what == "cut" and window["for"] > 70.0 and draw.random() < 0.5:
            # Calls that come when a worker has been cut off for so long that others settle what it left.
            for call in draw.sample(plan["calls"], len(plan["calls"]) // 2):
                call["at"] = round(window["at"] + draw.uniform(20.0, window["for"]), 4)
        if draw.random() < 0.4:
            _end_of(draw, plan, span, at=window["at"] + draw.uniform(0, 0.7) * window["for"], worker=window["worker"])


def _sever(draw: random.Random, plan: Plan) -> None:
    """A worker is cut off from the database, charges on when others have settled what it left, and dies like that."""
    worker = draw.randrange(len(plan["workers"]))
    at, silence = draw.uniform(0.5, 5.0), 80.0 if plan["layer"] == "lean" else 160.0
    seconds = silence + draw.uniform(30.0, 60.0)
    plan["db_weather"].append(
        {"fault": "cut", "worker": worker, "at": round(at, 3), "for": round(seconds, 3), "d": 0.0}
    )
    for call in draw.sample(plan["calls"], len(plan["calls"]) * 2 // 3):
        call["at"] = round(at + draw.uniform(silence, seconds), 4)
    end = {"fault": draw.choice(["kill", "kill", "stop"]), "worker": worker, "again": round(draw.uniform(0.3, 60.0), 3)}
    plan["world"].append({**end, "at": round(at + seconds - draw.uniform(0.0, 15.0), 3)})


def _deaths(draw: random.Random, plan: Plan, span: float) -> None:
    """Workers are killed, or stopped in order, and start again."""
    for _ in range(draw.randint(1, 3)):
        _end_of(draw, plan, span)


def _end_of(
    draw: random.Random, plan: Plan, span: float, *, at: float | None = None, worker: int | None = None
) -> None:
    worker = draw.randrange(len(plan["workers"])) if worker is None else worker
    fault: dict[str, Any] = {"fault": draw.choice(["kill", "kill", "stop"]), "worker": worker}
    fault |= _when(draw, plan, span, at)
    fault["again"] = round(draw.choice([0.3, 5.0, 40.0, 200.0]) * draw.uniform(0.5, 1.2), 3)
    plan["world"].append(fault)


def _when(draw: random.Random, plan: Plan, span: float, at: float | None = None) -> dict[str, Any]:
    if at is None and draw.random() < 0.5:
        moment = draw.choice(["handling", "answered", "worked", "sent", "ended"])
        call = draw.randrange(len(plan["calls"]))
        on = [moment, "check", call] if moment in ("answered", "worked", "sent") else [moment, call]
        if draw.random() < 0.5 and moment not in {"handling", "ended"}:
            on[1] = draw.choice(["track", "track", "finalize", "seal"])
        return {"on": on, "after": round(draw.choice([0.0, 0.01, 0.15, 0.4]) * draw.uniform(0.1, 1), 4)}
    return {"at": round(draw.uniform(0.6, span) if at is None else at, 3)}


def _pauses(draw: random.Random, plan: Plan, span: float) -> None:
    """Workers stand still, often for longer than a lease, and go on."""
    if len(plan["workers"]) == 1 and draw.random() < 0.8:
        plan["workers"].append({"start": 0.02})
    if draw.random() < 0.3:
        _overtake(draw, plan, span)
        return
    for _ in range(draw.randint(1, 2)):
        fault: dict[str, Any] = {"fault": "pause", "worker": draw.randrange(len(plan["workers"]))}
        fault |= _when(draw, plan, span)
        fault["for"] = round(draw.choice([4.0, 35.0, 100.0, 170.0, 300.0]) * draw.uniform(0.7, 1.2), 3)
        plan["world"].append(fault)


def _overtake(draw: random.Random, plan: Plan, span: float) -> None:
    """A worker stands still with calls under way, and goes on while others are busy with what they took over."""
    paused = draw.randrange(len(plan["workers"]))
    at, silence = draw.uniform(0.8, span), 80.0 if plan["layer"] == "lean" else 160.0
    seconds = silence + draw.uniform(0.0, 75.0)
    plan["world"].append({"fault": "pause", "worker": paused, "at": round(at, 3), "for": round(seconds, 3)})
    for call in draw.sample(plan["calls"], len(plan["calls"]) * 2 // 3):
        call["at"] = round(max(0.5, at - draw.uniform(0.0, 1.5)), 4)
    slow = {"fault": "slow_answer", "op": draw.choice([None, "seal", "track", "events"]), "worker": None}
    d = round(draw.uniform(0.5, 4.5), 3)
    plan["weather"].append(
        {**slow, "at": round(at + silence - 2.0, 3), "for": 160.0, "p": draw.choice([0.3, 1.0]), "d": d}
    )


def _clocks(draw: random.Random, plan: Plan, span: float) -> None:
    """Wall clocks are minutes off, jump, or drift."""
    for worker in plan["workers"]:
        worker["offset"] = draw.choice([0.0, 70.0, -70.0, 400.0, -400.0, 2.0])
        worker["rate"] = draw.choice([1.0, 1.0, 1.002, 0.998])
    if draw.random() < 0.5:
        plan["world"].append(
            {
                "fault": "jump",
                "worker": draw.randrange(len(plan["workers"])),
                "at": round(draw.uniform(0, span), 3),
                "by": draw.choice([-300.0, -20.0, 20.0, 300.0]),
            }
        )
    _aimed(draw, plan, span)


def _log(draw: random.Random, plan: Plan, span: float) -> None:
    """The event log is kept waiting by other services' events, or its store is slow."""
    # Behind by less than the package waits for it.
    lean = plan["layer"] == "lean"
    plan["log"] = {
        "delay": draw.choice([0.05, 5.0, 12.0] if lean else [0.05, 10.0, 35.0]),
        "busy": {
            "at": round(draw.uniform(0, span), 3),
            "for": round(draw.uniform(60, 200), 3),
            "every": 0.1 if lean else 0.29,
        },
    }
    _deaths(draw, plan, span)


def _crowd(draw: random.Random, plan: Plan, span: float) -> None:
    """Many calls come within a moment, and the network has a blip."""
    at = draw.uniform(1, span)
    first = len(plan["calls"])
    for number in range(first, first + draw.randint(10, 25)):
        call = _call(draw, number, span)
        call["at"] = round(at + draw.uniform(0, 0.3), 4)
        plan["calls"].append(call)
    if draw.random() < 0.7:
        fault = draw.choice(["reset", "503", "refuse", "500"])
        plan["weather"].append({"fault": fault, "op": None, "worker": None, "at": at, "for": 0.3, "p": 1.0, "d": 0.0})


def _jobs(draw: random.Random, plan: Plan, span: float) -> None:
    """Something dies, and from then on no process lives for long."""
    _deaths(draw, plan, span)
    lives, gap = draw.choice([20.0, 50.0, 100.0]), draw.choice([5.0, 300.0])
    if plan["layer"] == "lean":
        lives, gap = 20.0, 1500.0
    # Who never lives long enough to watch another worker's silence believes it after an hour and a bit.
    plan["jobs"] = {"lives": lives, "gap": gap, "count": int(6000 / (lives + gap)) + 5}


def _pages(draw: random.Random, plan: Plan, span: float) -> None:
    """The event log has short pages, and much has to be looked up in it."""
    plan["log"]["page"] = draw.choice([1, 2, 5])
    for call in plan["calls"]:
        call["customer"] = "c0"
    fault = {"fault": draw.choice(["answer_lost", "answer_reset", "500_after"]), "op": "check", "worker": None}
    plan["weather"].append({**fault, "at": 0.0, "for": span, "p": draw.choice([0.3, 0.8]), "d": 1.0})


def _organisations(draw: random.Random, plan: Plan, span: float) -> None:
    """Two organisations' services share one database, and something is left in it."""
    plan["organisations"] = 2
    if len(plan["workers"]) < 2:
        plan["workers"].append({"start": 0.01})
    if draw.random() < 0.7:
        draw.choice([_deaths, _weather, _commits])(draw, plan, span)


def _rolls(draw: random.Random, plan: Plan, span: float) -> None:
    """Workers are rolled to a next version: the new one starts while the old one stops in order."""
    at = draw.uniform(0.6, span)
    for worker in range(len(plan["workers"])):
        plan["world"].append({"fault": "roll", "worker": worker, "at": round(at, 3)})
        at += draw.choice([0.0, 0.5, 5.0])
    if draw.random() < 0.5:
        draw.choice([_aimed, _deaths, _database, _pauses])(draw, plan, span)


def _attempts(draw: random.Random, plan: Plan, span: float) -> None:
    """Callers send a key of their own, and come again with it: at once, after they left, or much later."""
    calls = plan["calls"]
    # A gate reads the whole body of a request that has a key, so nobody sends more after the answer began.
    for call in [one for one in calls if one["route"] not in ("door", "unread", "socket") and draw.random() < 0.4]:
        call["key"] = f"k{call['n']}"
        if draw.random() < 0.5:
            call["client"]["leaves"] = round(draw.choice([0.05, 0.3, 1.0]) * draw.uniform(0.2, 2), 4)
        at = call["at"]
        for _ in range(draw.choice([1, 1, 2, 3])):
            at = round(at + draw.choice([0.001, 0.3, 3.0, 30.0]) * draw.uniform(0.5, 2), 4)
            script = call["script"]
            if draw.random() < 0.5:
                script = [step for step in script if step[0] not in ("raise", "http", "status", "timeout")]
            client = dict(call["client"])
            if draw.random() < 0.6:
                client.pop("leaves", None)
            calls.append(
                {**call, "n": len(calls), "at": at, "script": [list(step) for step in script], "client": client}
            )
    if draw.random() < 0.5:
        draw.choice([_aimed, _deaths, _database, _commits])(draw, plan, span)


def _purchases(draw: random.Random, plan: Plan, span: float) -> None:
    """Customers top up and change their plan while calls run, and what they have lapses each minute."""
    customers = sorted({call["customer"] for call in plan["calls"]})
    plan["books"] = []
    for customer in customers:
        for _ in range(draw.choice([1, 2, 4])):
            bought = {"what": "top_up", "customer": customer, "credits": draw.choice([1, 5, 5, 7.5, 20])}
            plan["books"].append({"at": round(draw.uniform(0.1, span), 3), **bought})
        if draw.random() < 0.3:
            plan["books"].append({"at": round(draw.uniform(0.1, span), 3), "what": "upgrade", "customer": customer})
    feature = draw.choice(["brief", "topped_up", "topped_up", None])
    for call in plan["calls"]:
        call["feature"] = feature or draw.choice(["brief", "topped_up", "scarce"])
    if draw.random() < 0.5:
        draw.choice([_aimed, _deaths, _database, _commits])(draw, plan, span)


def _sockets(draw: random.Random, plan: Plan, span: float) -> None:
    """Calls are WebSockets: handlers stream, raise, return, or close them; callers hang up."""
    for call in plan["calls"]:
        script: list[Any] = []
        for _ in range(draw.randint(0, 4)):
            script += [["word"], ["sleep", round(draw.uniform(0.01, 0.5), 4)]]
        if draw.random() < 0.25:
            said = draw.choice([["refund"], ["keep"], ["settle", draw.choice(_SETTLING)]])
            script.insert(draw.randrange(len(script) + 1), said)
        if draw.random() < 0.5:
            script.append(draw.choice([["raise"], ["close", 1000], ["close", 1011], ["close", 1013], ["close", 4000]]))
        if draw.random() < 0.3:
            call["client"]["leaves"] = round(draw.choice([0.03, 0.3, 1.0]) * draw.uniform(0.2, 2), 4)
        call["client"].pop("junk", None)
        call |= {"route": "socket", "script": script}
    if draw.random() < 0.4:
        draw.choice([_aimed, _deaths, _commits])(draw, plan, span)


def _restore(draw: random.Random, plan: Plan, span: float) -> None:
    """The database comes back from an older copy."""
    plan["restore"] = {"at": round(draw.uniform(3, span + 60), 3), "age": round(draw.uniform(0.5, 30), 3)}
    _aimed(draw, plan, span)


_THEMES = {
    "aimed": (_aimed, 5),
    "weather": (_weather, 3),
    "commits": (_commits, 1),
    "database": (_database, 2),
    "deaths": (_deaths, 2),
    "pauses": (_pauses, 3),
    "clocks": (_clocks, 1),
    "log": (_log, 1),
    "crowd": (_crowd, 1),
    "jobs": (_jobs, 0.4),
    "pages": (_pages, 0.6),
    "organisations": (_organisations, 1),
    "restore": (_restore, 0.6),
    "rolls": (_rolls, 1),
    "attempts": (_attempts, 1),
    "purchases": (_purchases, 1),
    "sockets": (_sockets, 0.7),
}
"""What may go wrong together, and how often it is drawn."""
_FULL_ONLY = {"attempts", "purchases", "sockets"}
