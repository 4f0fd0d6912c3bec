"""Who is calling: a few people, each with an API token."""

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fastapi_autumn import Customer

__all__ = ["TOKENS", "current_customer", "identify"]

TOKENS = {
    "demo-alice": Customer("alice", name="Alice", email="alice@example.com"),
    "demo-bob": Customer("bob", name="Bob", email="bob@example.com"),
    "demo-carol": Customer("carol", name="Carol", email="carol@example.com"),
}
"""A real service keeps hashes of its tokens in a database."""


def identify(connection: HTTPConnection) -> Customer | None:
    """Tell whose token the request carries; None is nobody, and the middleware answers 401."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return TOKENS.get(token) if scheme.lower() == "bearer" else None


def current_customer(connection: HTTPConnection) -> Customer:
    """As `identify`, for routes that the middleware does not cover."""
    customer = identify(connection)
    if customer is None:
        raise HTTPException(401, "Who is calling?", headers={"WWW-Authenticate": "Bearer"})
    return customer
