"""Amounts of credits: what is one, and what it looks like on the wire."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_autumn.errors import AmountError
from fastapi_autumn.pricing import credits as to_credits
from fastapi_autumn.pricing import rounded_up, to_json_number


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (3, "3"),
        (0.1, "0.1"),
        (1e13, "10000000000000"),
        ("3.00", "3"),
        ("1e3", "1000"),
        (Decimal("1.10E1"), "11"),
        (Decimal("0.0000000001"), "1E-10"),
    ],
)
def test_an_amount_keeps_its_digits(value, amount):
    """Every way to write an amount gives the same exact decimal, without trailing zeros."""
    assert str(to_credits(value)) == amount


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "must be a number, not True"),
        (None, "a value of type NoneType"),
        (b"1", "a value of type bytes"),
        ("", "must be a number"),
        ("1_000", "must be a number"),
        (" 1", "must be a number"),
        ("\u0661", "must be a number"),
        ("9" * 1000, "a text of 1000 characters"),
        (float("nan"), "must be finite"),
        (float("inf"), "must be finite"),
        (Decimal("sNaN"), "must be finite"),
        (-1, "must not be negative"),
        (Decimal("-0.1"), "must not be negative"),
        pytest.param(-(10**5000), "a huge number", id="minus huge"),
        (10**13 + 1, "must not exceed"),
        pytest.param(10**5000, "a huge number", id="huge"),
        (Decimal("1E+999999"), "must not exceed"),
        (Decimal("1E-999999"), "at most 10 decimal places"),
        ("0.12345678901", "at most 10 decimal places"),
        (Decimal("1" + "0" * 50 + "1e-50"), "a number of many digits"),
        ("12345678.1234567890", "more digits than a JSON number keeps"),
        (0, "more than zero"),
        (Decimal("-0"), "more than zero"),
    ],
)
def test_what_is_no_amount_is_refused_in_one_line(value, reason):
    """Whatever could cheat the books or the wire is refused, and the message stays short however large the input."""
    with pytest.raises(AmountError, match=reason) as refused:
        to_credits(value)
    assert len(str(refused.value)) < 120
    assert "\n" not in str(refused.value)


def test_zero_only_on_request():
    """Zero, also a negative one, is an amount only where the caller allows it."""
    assert str(to_credits(Decimal("-0.00"), allow_zero=True)) == "0"


@given(st.decimals(min_value=Decimal("1e-10"), max_value=Decimal("1e13"), places=10))
def test_an_accepted_amount_survives_json(value):
    """What is accepted comes back from JSON to the last digit, as a double would carry it."""
    try:
        amount = to_credits(value)
    except AmountError:
        assert Decimal(repr(float(value))) != value
        return
    sent = json.dumps(to_json_number(amount))
    assert amount == value == Decimal(repr(float(json.loads(sent))))


def test_a_whole_amount_is_sent_as_an_integer():
    """Autumn shows 3, not 3.0, where the amount is whole."""
    assert json.dumps([to_json_number(Decimal(3)), to_json_number(Decimal("4.5"))]) == "[3, 4.5]"


def test_large_quotients_keep_fewer_places():
    """What has more digits than Autumn's doubles is rounded up where they end, and is the same after the way there."""
    exact = Decimal("1234567890.12345678901")
    rounded = rounded_up(exact)
    assert exact < rounded < exact + Decimal("0.000001")
    assert Decimal(repr(to_json_number(rounded))) == rounded
