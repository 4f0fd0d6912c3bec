"""The rule: row by row, and against an Autumn that loses, repeats, delays and forgets."""

from decimal import Decimal
from itertools import count

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from fastapi_autumn.charge._charging import WAYS, not_taken
from fastapi_autumn.settlement import entry as rule
from fastapi_autumn.settlement import ledger
from fastapi_autumn.settlement.entry import STALE_MS, Done, Doubt, Finalize, Grant, Look, Seal, Track
from settlement.entries import an_entry
from settlement.fake_autumn import CREDITS, DELAY, LAG, LONGEST_COPY, LONGEST_RUN, FakeAutumn, Fate

NOW = 1_790_000_000_000
FIVE, NOTHING = Decimal(5), Decimal(0)


def known(**changes):
    """A charge of which all is known, whose next key is the second one."""
    return an_entry(**{"doubt": Doubt.NONE, "taken": FIVE, "key_number": 1} | changes)


# Row by row.


@pytest.mark.parametrize(
    ("entry", "step"),
    [
        (an_entry(doubt=Doubt.UNKNOWN), Seal("w-1:check")),
        (an_entry(doubt=Doubt.UNKNOWN, key_number=3), Seal("w-1:3")),
        (an_entry(doubt=Doubt.SEALED), Look()),
        (an_entry(doubt=Doubt.IN_USE), Look()),
        (known(cost=FIVE), Done()),
        (known(cost=NOTHING), Track(Decimal(-5), "w-1:1")),
        (known(cost=Decimal(3), key_number=4), Track(Decimal(-2), "w-1:4")),
        (known(cost=Decimal(7)), Track(Decimal(2), "w-1:1")),
        (known(taken=None, cost=FIVE), Track(FIVE, "w-1:1")),
        (known(taken=NOTHING, cost=NOTHING), Done()),
        (known(taken=Decimal("0.00"), cost=NOTHING), Done()),
        (known(held=True, cost=FIVE), Finalize(FIVE, "w-1:1")),
        (known(held=True, cost=NOTHING), Finalize(NOTHING, "w-1:1")),
        (known(held=True, cost=Decimal(3)), Finalize(Decimal(3), "w-1:1")),
        # What cannot be moved, into a grant that was used up or out of an empty balance, only a track tells.
        (known(held=True, cost=Decimal(8)), Finalize(FIVE, "w-1:1")),
        (known(held=True, cost=NOTHING, loose_feature="grants"), Finalize(FIVE, "w-1:1")),
        (known(cost=NOTHING, taken=NOTHING, to_grant=Decimal(2), loose_feature="grants"), Grant(Decimal(2), "grants")),
    ],
    ids=str,
)
def test_what_is_done_next(entry, step):
    """Nothing moves while anything is in doubt; then a hold is finalized first, and a difference is moved once."""
    assert rule.next_step(entry) == step


@pytest.mark.parametrize("contested", [False, True])
@pytest.mark.parametrize("doubt", [Doubt.SEALED, Doubt.IN_USE])
@pytest.mark.parametrize(
    ("held", "was", "shown", "expected"),
    [
        (False, None, NOTHING, (NOTHING, False)),
        (False, None, FIVE, (FIVE, False)),
        (False, FIVE, NOTHING, (NOTHING, False)),
        (False, FIVE, FIVE, (FIVE, False)),
        # A hold may be there as long as the log shows all of it: confirming one leaves no trace.
        (True, None, FIVE, (FIVE, True)),
        (True, None, NOTHING, (NOTHING, False)),
        (True, FIVE, FIVE, (FIVE, True)),
        (True, FIVE, NOTHING, (NOTHING, False)),
        (True, FIVE, Decimal(3), (Decimal(3), False)),
        (True, FIVE, Decimal(8), (Decimal(8), False)),
    ],
)
def test_what_the_log_decides(doubt, held, was, shown, expected, contested):
    """A key that was free when it was sealed has nothing to hide; one that was in use has done what the log shows."""
    entry = an_entry(doubt=doubt, held=held, taken=was, key_number=2, contested=contested, attempts=3)
    if doubt is Doubt.SEALED:
        after = rule.looked(entry, shown)
    else:
        after = rule.sealed_again(entry, in_use=True, shown=shown, delay_ms=9, now=NOW)

    assert (after.key_number, after.attempts) == (3, 0)
    if doubt is Doubt.IN_USE and shown == (was or 0):
        # Nothing is known yet, so nothing is changed.
        assert after == entry._replace(key_number=3, doubt=Doubt.UNKNOWN, attempts=0)
        return
    assert (after.taken, after.held) == expected
    # Whoever shares a charge may be about to use the next key, unless this one was still free.
    still_contested = contested and doubt is Doubt.IN_USE
    assert after.contested is still_contested
    assert after.doubt is (Doubt.UNKNOWN if still_contested else Doubt.NONE)


@pytest.mark.parametrize(("in_use", "doubt"), [(False, Doubt.SEALED), (True, Doubt.IN_USE)])
def test_sealing_waits_for_the_log(in_use, doubt):
    """The log is asked when it can be trusted to show all that had begun before, and not earlier."""
    entry = rule.sealed(an_entry(attempts=4), in_use=in_use, delay_ms=120_000, now=NOW)

    assert (entry.doubt, entry.due_at, entry.attempts) == (doubt, NOW + 120_000, 0)


@pytest.mark.parametrize("shown", [NOTHING, FIVE])
def test_a_key_that_turned_out_free_is_looked_up_again(shown):
    """What was in use has failed, perhaps after its work; now that the key is closed the log has its time again."""
    entry = rule.sealed_again(an_entry(doubt=Doubt.IN_USE), in_use=False, shown=shown, delay_ms=9, now=NOW)

    assert (entry.doubt, entry.due_at, entry.key_number) == (Doubt.SEALED, NOW + 9, 0)


def test_a_hold_that_cannot_be_finalized_is_looked_up():
    """Whatever Autumn's reason, a hold is never finalized a second time: the log says what has become of it."""
    entry = rule.finalize_refused(known(held=True), delay_ms=120_000, now=NOW)

    assert (entry.held, rule.next_step(entry), entry.due_at) == (False, Look(), NOW + 120_000)


@pytest.mark.parametrize(("age", "doubt"), [(STALE_MS, Doubt.NONE), (STALE_MS + 1, Doubt.UNKNOWN)])
def test_what_nobody_worked_on_for_long_is_looked_up_first(age, doubt):
    """Autumn forgets keys after a day, and a row that was due for so long may come from a backup."""
    assert rule.in_doubt(known(due_at=NOW - age), NOW).doubt is doubt


def test_what_is_looked_up_already_needs_no_more_doubt():
    """An old row in doubt stays as it is."""
    entry = an_entry(doubt=Doubt.SEALED, due_at=NOW - 2 * STALE_MS)

    assert rule.in_doubt(entry, NOW) == entry


@pytest.mark.parametrize(
    ("shown", "exact"),
    [("-2.3699999999999997", "-2.37"), ("0.30000000000000004", "0.3"), ("1e-11", "0"), ("5.0000000000", "5")],
)
def test_sums_of_doubles_are_rounded(shown, exact):
    """Autumn's log adds up doubles, off in the last digits; what comes of that is no difference to be moved."""
    entry = rule.looked(an_entry(doubt=Doubt.SEALED, cost=Decimal(exact)), Decimal(shown))

    assert entry.taken == Decimal(exact)
    assert rule.next_step(entry) == Done()


@pytest.mark.parametrize(
    ("entry", "shown", "enough"),
    [
        (an_entry(), "5", True),
        (an_entry(), "0", False),
        (an_entry(), "3", False),
        (an_entry(), "5.0000000000000004", True),
        (an_entry(contested=True), "5", False),
        (known(cost=Decimal(3)), "3", False),
        (known(cost=FIVE), "5", False),
    ],
    ids=str,
)
def test_when_a_sum_is_enough(entry, shown, enough):
    """Only for a check, which takes all or nothing: a sum is of what was asked, and a settlement may move less."""
    assert rule.is_enough(entry, Decimal(shown)) is enough


# What is written into the log.


def test_keys_and_ids_never_change():
    """Autumn keeps them: a later version has to find what an earlier one wrote."""
    charge = ledger.charge_id("0123456789abcdef", 42)

    assert charge == "0123456789abcdef-42"
    assert [ledger.key_of(charge, number) for number in (0, 1, 12)] == [
        f"{charge}:check",
        f"{charge}:1",
        f"{charge}:12",
    ]
    assert ledger.lock_id(charge) == charge
    assert ledger.charge_number(charge, "0123456789abcdef") == 42


@pytest.mark.parametrize("foreign", ["", "42", "other-42", "0123456789abcdef-", "0123456789abcdef-x", None, 7,
                                     "0123456789abcdef-٣"])  # fmt: skip
def test_other_peoples_ids_are_no_charges_of_ours(foreign):
    """An application may track events of its own, with any property."""
    assert ledger.charge_number(foreign, "0123456789abcdef") is None


# Against Autumn.


class Plan:
    """The fates of requests, one after the other; when they run out, everything goes well."""

    def __init__(self, fates):
        self._fates = iter(fates)

    def next(self):
        return next(self._fates, Fate())


def open_at(autumn, way, plan, *, cost, expires_at):
    """Take the credits, as `Charges` does, and return what is left to do when the call has ended with `cost`."""
    entry = an_entry(charging="deduct" if way == "deduct" else "hold", held=way != "deduct")
    work = autumn.hold(expires_at) if entry.held else autumn.use(CREDITS)
    match autumn.ask(work, entry.key, plan.next()):
        case "yes":
            loose = "grants" if way == "hold on a grant" else None
            return WAYS[entry.charging].taken(entry)._replace(cost=cost, loose_feature=loose)
        case "no":
            return not_taken(entry)
        case _:
            # Neither a yes nor a no: the call is refused, or served all the same.
            return entry._replace(cost=cost)


def take_step(autumn, entry, fate):
    """Do one step at Autumn, as `Delivery` does."""
    match rule.next_step(entry):
        case Seal(key):
            answer = autumn.ask(autumn.nothing, key, fate)
            if answer == "unknown":
                return entry
            return rule.sealed(entry, in_use=answer == "in use", delay_ms=DELAY, now=autumn.now)
        case Look():
            shown = autumn.shown
            if entry.doubt is not Doubt.IN_USE:
                return rule.looked(entry, shown)
            answer = autumn.ask(autumn.nothing, entry.key, fate)
            if answer == "unknown":
                return entry
            in_use = answer == "in use"
            return rule.sealed_again(entry, in_use=in_use, shown=shown, delay_ms=DELAY, now=autumn.now)
        case Track(value, key):
            answer = autumn.ask(autumn.use(value), key, fate)
            return entry._replace(taken=entry.cost) if answer == "yes" else rule.attempt_unknown(entry)
        case Finalize(value, key):
            answer = autumn.ask(autumn.finalize(value), key, fate)
            if answer == "yes":
                return entry._replace(held=False, taken=value, key_number=entry.key_number + 1)
            if answer in {"no", "not claimable"}:
                return rule.finalize_refused(entry, delay_ms=DELAY, now=autumn.now)
            return rule.attempt_unknown(entry)
        case Done():
            return None


def settle(autumn, entry, plan, *, most_steps):
    """Work on an entry until nothing is left of it; returns after how many steps."""
    for steps in count(1):
        assert steps <= most_steps, f"not settled after {most_steps} steps: {entry}"
        autumn.pass_to(max(autumn.now, entry.due_at))
        entry = take_step(autumn, entry, plan.next())
        if entry is None:
            return steps
    raise AssertionError


ENDS = ["well", "fails before", "fails after", "dies before", "dies after"]
lags, runs = st.integers(0, LAG), st.integers(0, LONGEST_RUN)
ordinary = st.builds(
    Fate, answered=st.booleans(), late=st.integers(0, 4 * DELAY), run=runs, end=st.sampled_from(ENDS), lag=lags
)
# A copy of what did its work and freed its key would do it again; no rule could tell from a clear yes.
copied = st.builds(
    Fate,
    answered=st.booleans(),
    late=st.integers(0, DELAY),
    run=runs,
    end=st.sampled_from(["well", "fails before", "dies before", "dies after"]),
    copied=st.integers(0, LONGEST_COPY),
    lag=lags,
)
fates = st.lists(ordinary | copied, max_size=7)
costs = st.sampled_from([NOTHING, FIVE, Decimal(3), Decimal(8)])
MOST_STEPS = 70


@settings(max_examples=300, deadline=None)
@given(
    way=st.sampled_from(["deduct", "hold", "hold on a grant"]),
    cost=costs,
    fates=fates,
    expires_at=st.integers(0, 8 * DELAY),
)
def test_whatever_happens_the_charge_ends_at_its_cost(way, cost, fates, expires_at):
    """Answers and requests are lost, late and doubled, work fails before and after: the net is right, once for all."""
    autumn, plan = FakeAutumn(), Plan(fates)
    entry = open_at(autumn, way, plan, cost=cost, expires_at=expires_at)
    expected = entry.cost
    steps = settle(autumn, entry, plan, most_steps=MOST_STEPS)
    autumn.pass_to(float("inf"))

    event(f"steps: {steps // 5 * 5}")
    assert autumn.net == expected


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(
    # The check's key is free again although its work is done; the other one has seen that, and uses the next key.
    cost=FIVE,
    fates=[Fate(answered=False, run=LONGEST_RUN, end="fails after")],
    others=[],
    before=2,
    pause=0,
    late_step=6 * DELAY,
)
@given(
    cost=costs,
    fates=fates,
    others=fates,
    before=st.integers(0, 12),
    pause=st.integers(0, 6 * DELAY),
    late_step=st.integers(0, 12 * DELAY),
)
def test_two_that_settle_one_charge_end_at_what_its_maker_decided(cost, fates, others, before, pause, late_step):
    """A worker that was taken for dead comes back while another one is settling its charge: the maker's word counts."""
    autumn, plan, their_plan = FakeAutumn(), Plan(fates), Plan(others)
    entry = open_at(autumn, "deduct", plan, cost=cost, expires_at=0)
    expected = entry.cost
    # The other one, which is silent about how the call ended, gives everything back.
    theirs = an_entry(due_at=autumn.now)
    for _ in range(before):
        autumn.pass_to(max(autumn.now, theirs.due_at))
        after = take_step(autumn, theirs, their_plan.next())
        if after is None:
            break
        theirs = after
    autumn.pass_to(autumn.now + pause)
    # From now on the row is the maker's. What the other one has in hand, it may still send, at any moment.
    match rule.next_step(theirs):
        case Track(value, key):
            autumn.at(autumn.now + late_step, lambda: autumn.ask(autumn.use(value), key, their_plan.next()))
    number = 0 if entry.taken is None else max(1, entry.key_number)
    contested = entry._replace(contested=True, doubt=Doubt.UNKNOWN, key_number=number)
    settle(autumn, contested, plan, most_steps=MOST_STEPS + 10 * before)
    autumn.pass_to(float("inf"))

    assert autumn.net == expected


LATE_CHECK = Fate(answered=False, late=DELAY + LONGEST_RUN, run=LONGEST_RUN)
FAILING_SEAL = Fate(answered=False, run=LONGEST_RUN, end="fails before")
NEEDED = {
    "an attempt is not repeated under its key": ("deduct", NOTHING, [Fate(), Fate(end="fails after")]),
    "the log has its time": ("deduct", NOTHING, [Fate(answered=False, lag=LAG)]),
    "the next attempt has a key of its own": ("deduct", NOTHING, [Fate(answered=False)]),
    "a key in use is sealed once more": ("deduct", NOTHING, [LATE_CHECK, FAILING_SEAL]),
    "a key in use again is not believed": ("deduct", NOTHING, [LATE_CHECK, FAILING_SEAL]),
    "a hold is released only when it is there": ("hold", NOTHING, [Fate(answered=False, late=1)]),
    "a hold that was not seen yet may still come": ("hold", NOTHING, [LATE_CHECK, FAILING_SEAL]),
}


def ends_right(way, cost, fates):
    autumn, plan = FakeAutumn(), Plan(fates)
    entry = open_at(autumn, way, plan, cost=cost, expires_at=5 * DELAY)
    try:
        settle(autumn, entry, plan, most_steps=MOST_STEPS)
    except AssertionError:
        return False
    autumn.pass_to(float("inf"))
    return autumn.net == cost


@pytest.mark.parametrize("part", NEEDED)
def test_each_part_of_the_rule_is_needed(part, monkeypatch):
    """With it a charge ends at its cost, and without it the same events end at another one, or never."""
    assert ends_right(*NEEDED[part])
    sealed, known_before = rule.sealed, rule._known
    next_step, sealed_again = rule.next_step, rule.sealed_again

    def without_a_look(entry):
        step = next_step(entry)
        return Finalize(entry.cost, entry.key) if entry.held and isinstance(step, Seal) else step

    name, broken = {
        "an attempt is not repeated under its key": ("attempt_unknown", lambda entry: entry),
        "the log has its time": ("sealed", lambda entry, **options: sealed(entry, **options)._replace(due_at=0)),
        "the next attempt has a key of its own": (
            "_known", lambda entry, shown: known_before(entry, shown)._replace(key_number=entry.key_number)
        ),
        "a key in use is sealed once more": (
            "sealed_again", lambda entry, *, shown, **options: known_before(entry, shown)
        ),
        "a key in use again is not believed": (
            "sealed_again",
            lambda entry, *, in_use, **options: (
                known_before(entry, NOTHING) if in_use else sealed_again(entry, in_use=False, **options)
            ),
        ),
        "a hold is released only when it is there": ("next_step", without_a_look),
        "a hold that was not seen yet may still come": (
            "sealed_again",
            lambda entry, **options: sealed_again(entry, **options)._replace(held=False),
        ),
    }[part]  # fmt: skip
    monkeypatch.setattr(rule, name, broken)

    assert not ends_right(*NEEDED[part])
