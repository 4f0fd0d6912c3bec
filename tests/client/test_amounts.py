"""Amounts of credits on their way to Autumn and back."""

import json
from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any

import httpx
import pytest

from client.answers import ALLOWED, BALANCE, TRACKED
from fastapi_autumn import AutumnClient
from fastapi_autumn.errors import AmountError

EXACT = [
    (1, b"1"),
    (Decimal(3), b"3"),
    (Decimal("3.00"), b"3"),
    (Decimal("3E+2"), b"300"),
    (0.1, b"0.1"),
    (Decimal("0.1"), b"0.1"),
    (Decimal("1E-10"), b"1e-10"),
    (1e-10, b"1e-10"),
    (Decimal("48.3666666657"), b"48.3666666657"),
    (48.3666666657, b"48.3666666657"),
    (Decimal(10000000000000), b"10000000000000"),
    (1e13, b"10000000000000"),
]

# Refused wherever an amount can be given; what a negative or zero amount means depends on the operation.
NEVER_SENT = [
    Decimal("NaN"),
    Decimal("sNaN"),
    float("nan"),
    Decimal("Infinity"),
    Decimal("-Infinity"),
    float("inf"),
    float("-inf"),
    True,
    False,
    Decimal("10000000000000.1"),
    10**13 + 1,
    -(10**13) - 1,
    1e300,
    Decimal("1E+400"),
    Decimal("0.00000000001"),
    1e-11,
    Decimal("1234567890123.12345"),
]


@pytest.fixture
def sent(autumn: Any) -> Iterator[list[bytes]]:
    """The bodies that reached Autumn, whatever the operation."""
    bodies: list[bytes] = []

    def keep(request: Any) -> Any:
        bodies.append(request.content)
        return httpx.Response(200, json={**ALLOWED, **TRACKED, "success": True})

    autumn.route().mock(side_effect=keep)
    return bodies


@pytest.mark.parametrize(("amount", "written"), EXACT)
async def test_writes_exact_digits(amount: Any, written: bytes, client: AutumnClient, sent: list[bytes]) -> None:
    """Every way to write an amount reaches Autumn as the same shortest number, in both directions of a track."""
    await client.balances.check("ada", "ai_usage", required_balance=amount, send_event=True)
    await client.balances.track("ada", value=amount, feature_id="ai_usage")
    await client.balances.track("ada", value=-amount, feature_id="ai_usage")
    await client.balances.finalize("lock_1", "confirm", override_value=amount)
    assert b'"required_balance":' + written + b"," in sent[0]
    assert b'"value":' + written + b"}" in sent[1]
    assert b'"value":-' + written + b"}" in sent[2]
    assert b'"override_value":' + written + b"}" in sent[3]


async def test_does_not_round_in_a_narrow_decimal_context(client: AutumnClient, sent: list[bytes]) -> None:
    """An application may work with three digits; what it gives back is still what it took."""
    with localcontext(prec=3):
        await client.balances.track("ada", value=Decimal("-48.3666666657"), feature_id="ai_usage")
    assert json.loads(sent[0], parse_float=Decimal)["value"] == Decimal("-48.3666666657")


@pytest.mark.parametrize("amount", NEVER_SENT, ids=repr)
async def test_never_sends_what_is_no_amount(amount: Any, client: AutumnClient, sent: list[bytes]) -> None:
    """NaN, infinity, bools, and what JSON or Autumn would round, are refused here by every operation."""
    with pytest.raises(AmountError):
        await client.balances.check("ada", "ai_usage", required_balance=amount, send_event=True)
    with pytest.raises(AmountError):
        await client.balances.track("ada", value=amount, feature_id="ai_usage")
    with pytest.raises(AmountError):
        await client.balances.finalize("lock_1", "confirm", override_value=amount)
    assert sent == []


@pytest.mark.parametrize("amount", [-1, -0.1, Decimal(-1), Decimal("-1E-10")])
async def test_never_adds_credits_by_a_check(amount: Any, client: AutumnClient, sent: list[bytes]) -> None:
    """Autumn adds credits for a negative requirement, so no price list may ever get one there."""
    with pytest.raises(AmountError, match="must not be negative"):
        await client.balances.check("ada", "ai_usage", required_balance=amount, send_event=True)
    with pytest.raises(AmountError, match="must not be negative"):
        await client.balances.finalize("lock_1", "confirm", override_value=amount)
    assert sent == []


@pytest.mark.parametrize("amount", [0, 0.0, -0.0, Decimal(0), Decimal("-0"), Decimal("0E+5")])
async def test_never_tracks_nothing(amount: Any, client: AutumnClient, sent: list[bytes]) -> None:
    """A track of 0 moves nothing and uses up its idempotency key."""
    with pytest.raises(AmountError, match="more than zero"):
        await client.balances.track("ada", value=amount, feature_id="ai_usage")
    assert sent == []


@pytest.mark.parametrize(
    ("read", "written", "cached"), [(0, 0, None), (0, 0, 0), (-1, 5, None), (5, -1, 0), (5, 5, -1)]
)
async def test_never_tracks_no_tokens(
    read: int, written: int, cached: int | None, client: AutumnClient, sent: list[bytes]
) -> None:
    """Autumn deducts a whole credit for no tokens at all."""
    with pytest.raises(AmountError, match="positive number of tokens"):
        await client.balances.track_tokens(
            "ada", model_id="m", input_tokens=read, output_tokens=written, cache_read_tokens=cached
        )
    assert sent == []


@pytest.mark.parametrize(
    "number", ["0", "0.1", "1e-10", "48.3666666657", "0.000675", "-2.5", "10000000000000", "1E2", "0.30000000000000004"]
)
async def test_reads_exact_digits(number: str, client: AutumnClient, autumn: Any) -> None:
    """What Autumn writes is what the application gets: no binary rounding between."""
    balance = json.dumps(BALANCE).replace(": 45", f": {number}")
    autumn.post("/balances.track").respond(content=f'{{"customer_id": "ada", "value": {number}, "balance": {balance}}}')
    result = await client.balances.track("ada", feature_id="ai_usage")
    assert result.balance is not None
    assert (result.value, result.balance.remaining) == (Decimal(number), Decimal(number))


async def test_a_charge_comes_back_to_the_last_digit(client: AutumnClient, sent: list[bytes]) -> None:
    """Ten times a tenth there and one back is exactly nothing, with the numbers that were on the wire."""
    for _ in range(10):
        await client.balances.track("ada", value=0.1, feature_id="ai_usage")
    await client.balances.track("ada", value=Decimal(-1), feature_id="ai_usage")
    assert sum(json.loads(body, parse_float=Decimal)["value"] for body in sent) == 0
