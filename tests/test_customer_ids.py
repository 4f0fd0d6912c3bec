"""Which ids are customers."""

import pytest

from fastapi_autumn import Customer
from fastapi_autumn.customers import MAX_CUSTOMER_ID, is_customer_id


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "user_123",
        "org:42",
        "550e8400-e29b-41d4-a716-446655440000",
        "auth0|5f7c8ec7",
        "ada@example.com",
        "ada+test@example.com",
        "null",
        "0",
        "..",
        "a.b",
        "#1",
        "Ünïcödé",
        "顧客",
        "🦊",
        "x" * MAX_CUSTOMER_ID,
        "🦊" * MAX_CUSTOMER_ID,
    ],
)
def test_takes_the_ids_that_applications_use(value: str) -> None:
    """Whatever names one customer, in any script, up to the length that Autumn was seen to store."""
    assert is_customer_id(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        " ada",
        "ada ",
        "a da",
        "ada\n",
        "ada\t",
        "a\u00a0da",
        "a\u2003da",
        "a\u2028da",
        "a/b",
        "/",
        "a\x00b",
        "a\x1fb",
        "a\x7fb",
        "a\x85b",
        "a\ud800b",
        "\udfff",
        "\ud83e\udd8a",
        "x" * (MAX_CUSTOMER_ID + 1),
        None,
        0,
        1,
        True,
        b"ada",
        ["ada"],
        Customer("ada"),
    ],
    ids=ascii,
)
def test_refuses_what_autumn_would_refuse_or_mistake(value: object) -> None:
    """An empty id answers for somebody else; spaces and slashes are refused; the rest does not survive the way."""
    assert not is_customer_id(value)
