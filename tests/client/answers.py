"""Answers and keys that the tests of the client share."""

from typing import Any

# No TLS, because reading the certificates of the machine would be most of the time that these tests take.
ORIGIN = "http://autumn.example"
KEY = "am_sk_test_keepThisOutOfSight"

BALANCE: dict[str, Any] = {
    "feature_id": "ai_credits",
    "granted": 50,
    "remaining": 45,
    "usage": 5,
    "unlimited": False,
    "overage_allowed": False,
}
ALLOWED: dict[str, Any] = {"allowed": True, "customer_id": "ada", "required_balance": 5, "balance": BALANCE}
TRACKED: dict[str, Any] = {"customer_id": "ada", "value": 5, "balance": BALANCE}
