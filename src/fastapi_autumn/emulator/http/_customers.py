"""Customers in the file: one row each, with a document."""

from __future__ import annotations

from fastapi_autumn.emulator._errors import not_found
from fastapi_autumn.emulator.books._customer import Customer, from_document, to_document
from fastapi_autumn.emulator.http._store import Store


def load(store: Store, customer_id: str | None) -> Customer:
    """Return a customer by id, or raise the 404.

    An empty id finds the customer that was created last. That is what Autumn does, and why a client must never
    send one.
    """
    if customer_id == "":
        row = store.row("SELECT seq, doc FROM customers ORDER BY seq DESC LIMIT 1")
    else:
        row = store.row("SELECT seq, doc FROM customers WHERE id = ?", customer_id)
    if row is None:
        raise not_found("customer", customer_id)
    return from_document(row[0], row[1])


def load_number(store: Store, number: int) -> Customer | None:
    """Return a customer by row, or None if it was deleted."""
    row = store.row("SELECT seq, doc FROM customers WHERE seq = ?", number)
    return from_document(row[0], row[1]) if row else None


def save(store: Store, customer: Customer) -> None:
    """Write a customer back; a new one (number 0) gets its row."""
    if customer.number == 0:
        customer.number = store.insert(
            "INSERT INTO customers (id, email, name, created_at, doc) VALUES (?, ?, ?, ?, '')",
            customer.id, customer.email, customer.name, customer.created_at,
        )  # fmt: skip
    store.run(
        "UPDATE customers SET id = ?, email = ?, name = ?, doc = ? WHERE seq = ?",
        customer.id, customer.email, customer.name, to_document(customer), customer.number,
    )  # fmt: skip
    for plan_id, version in customer.joined:
        store.run("INSERT OR IGNORE INTO customer_plans VALUES (?, ?, ?)", customer.number, plan_id, version)
    customer.joined.clear()
