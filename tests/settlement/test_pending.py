"""What the next commit will write, change by change."""

from decimal import Decimal

import pytest

from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.pending import Pending
from fastapi_autumn.settlement.store import Delivered, Ended, Opened
from settlement.entries import an_entry

FIVE = Decimal(5)


@pytest.fixture
def pending():
    return Pending()


def kept(charge_id="w-1", **changes):
    """A charge that was taken, and whose call succeeded: nothing is owed."""
    return an_entry(charge_id, **{"taken": FIVE, "cost": FIVE, "key_number": 1, "doubt": Doubt.NONE} | changes)


def refunded(charge_id="w-1", **changes):
    """A charge that was taken, and whose call failed."""
    return kept(charge_id, **{"cost": Decimal(0)} | changes)


def test_a_charge_that_begins_is_written(pending):
    """Until it ends, its row says what to do if the process dies."""
    pending.open(an_entry())

    assert pending.take().changes == {"w-1": Opened(an_entry())}
    assert (len(pending), pending.open_charges) == (0, 1)


def test_opened_and_kept_between_two_commits_is_never_written(pending):
    """It costs no row; only its end is remembered, in case others take this process for dead meanwhile."""
    pending.open(an_entry())
    pending.end(kept(), owed=False)

    assert (len(pending), pending.open_charges, pending.unproven) == (0, 0, 1)
    taken = pending.take()
    assert (taken.changes, taken.unwritten) == ({}, {"w-1": kept()})
    assert pending.unproven == 0


def test_opened_and_refunded_between_two_commits_is_one_change(pending):
    """The last word counts."""
    pending.open(an_entry())
    pending.end(refunded(), owed=True)

    assert pending.take().changes == {"w-1": Ended(refunded(), owed=True)}


def test_kept_after_a_commit_its_row_is_deleted(pending):
    """So it is when it was kept while its row was on the way to the disk."""
    pending.open(an_entry())
    pending.take()
    pending.end(kept(), owed=False)

    assert pending.take().changes == {"w-1": Ended(kept(), owed=False)}


def test_a_hold_that_is_owed_nothing_leaves_nothing(pending):
    """A hold was never open here, so there is nothing to forget."""
    pending.end(kept(charging="hold"), owed=False)

    assert (len(pending), pending.unproven) == (0, 0)


@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_a_commit_that_failed_may_have_got_through(pending, when):
    """When the answer to a COMMIT is lost, a charge that is kept then is deleted all the same."""
    pending.open(an_entry())
    taken = pending.take()
    if when == "meanwhile":
        pending.end(kept(), owed=False)
    pending.take_back(taken)
    if when == "afterwards":
        pending.end(kept(), owed=False)

    assert pending.take().changes == {"w-1": Ended(kept(), owed=False)}


def test_what_came_in_meanwhile_is_newer(pending):
    """What could not be written is kept, but not over what has happened since."""
    pending.open(an_entry("w-1"))
    pending.open(an_entry("w-2"))
    pending.open(an_entry("w-3"))
    pending.end(kept("w-3"), owed=False)
    taken = pending.take()
    pending.end(refunded("w-1"), owed=True)
    pending.take_back(taken)

    again = pending.take()
    assert again.changes == {"w-1": Ended(refunded("w-1"), owed=True), "w-2": Opened(an_entry("w-2"), fresh=False)}
    assert again.unwritten == {"w-3": kept("w-3")}


def test_what_became_of_a_claimed_row_is_written(pending):
    """Gone, due again, or for a person."""
    pending.delivered(refunded("w-1"), None)
    pending.delivered(refunded("w-2"), "shortfall")

    changes = pending.take().changes
    assert changes == {"w-1": Delivered(refunded("w-1"), None), "w-2": Delivered(refunded("w-2"), "shortfall")}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_the_makers_word_about_a_charge_counts(pending, when):
    """What became of a row that others had made of a charge never replaces what its own process has yet to write."""
    pending.end(refunded(), owed=True)
    if when == "before":
        pending.delivered(an_entry(), None)
    taken = pending.take()
    if when == "meanwhile":
        pending.delivered(an_entry(), None)
    pending.take_back(taken)

    assert pending.take().changes == {"w-1": Ended(refunded(), owed=True)}


# Taken for dead.


def contested(entry, *, key_number):
    return Ended(entry._replace(contested=True, doubt=Doubt.UNKNOWN, key_number=key_number), owed=True)


@pytest.mark.parametrize("seen", ["not written", "kept between two commits", "kept since"])
def test_a_charge_that_was_served_is_checked(pending, seen):
    """Others may have given it back, whether they found it in the table or in Autumn's log: nothing is forgotten."""
    pending.open(an_entry())
    taken = pending.take()
    if seen == "kept between two commits":
        pending.take_back(taken)
        pending.end(kept(), owed=False)
        taken = pending.take()
    elif seen == "kept since":
        pending.end(kept(), owed=False)
    else:
        pending.take_back(taken)
        taken = pending.take()
        pending.end(kept(), owed=False)
    pending.contest(taken)

    assert pending.take().changes == {"w-1": contested(kept(), key_number=1)}


def test_a_charge_that_is_under_way_is_checked_when_it_ends(pending):
    """It goes on under the new name, and whatever it comes to is compared with what others may have done."""
    pending.open(an_entry())
    pending.contest(pending.take())
    assert pending.take().changes == {"w-1": Opened(an_entry(), fresh=False)}
    pending.end(kept(), owed=False)

    assert pending.take().changes == {"w-1": contested(kept(), key_number=1)}


def test_a_charge_whose_check_had_no_answer_is_checked_from_the_first_key_on(pending):
    """What others did first, for a charge of which nothing was known, was to close the key of its check."""
    pending.open(an_entry())
    pending.end(an_entry(reason="no answer to the check"), owed=True)
    pending.contest(pending.take())

    (change,) = pending.take().changes.values()
    assert (change.entry.contested, change.entry.key_number) == (True, 0)


def test_holds_are_settled_as_they_are(pending):
    """A hold is in no journal, so nobody else can have settled it."""
    hold = refunded(charging="hold", held=True)
    pending.end(hold, owed=True)
    pending.contest(pending.take())

    assert pending.take().changes == {"w-1": Ended(hold, owed=True)}


def test_what_was_claimed_under_the_old_name_is_left_to_others(pending):
    """Whoever has claimed a row since delivers it."""
    pending.delivered(refunded(), None)
    pending.contest(pending.take())

    assert pending.take().changes == {}


def test_only_what_was_not_proven_is_checked(pending):
    """A charge that a commit showed to have ended was over for everybody."""
    pending.open(an_entry("w-1"))
    pending.end(kept("w-1"), owed=False)
    pending.take()
    pending.open(an_entry("w-2"))
    pending.end(kept("w-2"), owed=False)
    pending.contest(pending.take())

    assert pending.take().changes == {"w-2": contested(kept("w-2"), key_number=1)}


@pytest.mark.parametrize("written_down", [True, False])
def test_a_hold_that_ended_when_others_took_over(pending, written_down):
    """One that was written down may have been settled by others, and is checked; of any other nobody can know."""
    hold = kept(charging="hold", held=True)
    if written_down:
        pending.open(hold)
    pending.end(hold, owed=True)
    taken = pending.take()
    pending.contest(taken)

    assert pending.take().changes["w-1"].entry.contested is written_down
