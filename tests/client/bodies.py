"""What each operation on customers, balances and events sends: the call, its body, and an answer."""

from decimal import Decimal
from typing import Any

from client.answers import ALLOWED as ADAS
from client.answers import TRACKED as ADAS_TRACK
from fastapi_autumn import Customer, models

CUSTOMER = {"id": "cus_123"}
ALLOWED = {**ADAS, "customer_id": "cus_123"}
TRACKED = {**ADAS_TRACK, "customer_id": "cus_123"}
PAGE: dict[str, Any] = {"list": [], "next_cursor": None}
DONE = {"success": True}

# The bodies are those that Autumn's official TypeScript client sends for the same calls, where it has the same options.
SENT: dict[str, tuple[Any, Any, Any]] = {
    "customers.get_or_create": (
        lambda client: client.customers.get_or_create(
            Customer("cus_123", name="Ada", email="a@b.co", metadata={"k": "v"}), expand=["invoices"]
        ),
        {
            "customer_id": "cus_123",
            "name": "Ada",
            "email": "a@b.co",
            "metadata": {"k": "v"},
            "expand": ["invoices"],
        },
        CUSTOMER,
    ),
    "customers.get_or_create, only an id": (
        lambda client: client.customers.get_or_create(Customer("cus_123")),
        {"customer_id": "cus_123"},
        CUSTOMER,
    ),
    "customers.get_or_create, a fingerprint": (
        lambda client: client.customers.get_or_create(Customer("cus_123", fingerprint="f1")),
        {"customer_id": "cus_123", "fingerprint": "f1"},
        CUSTOMER,
    ),
    "customers.get": (lambda client: client.customers.get("cus_123"), {"customer_id": "cus_123"}, CUSTOMER),
    "customers.get, expanded": (
        lambda client: client.customers.get("cus_123", expand=["invoices", "entities"]),
        {"customer_id": "cus_123", "expand": ["invoices", "entities"]},
        CUSTOMER,
    ),
    "customers.list": (lambda client: client.customers.list(), {"start_cursor": "", "limit": 50}, PAGE),
    "customers.list, a search": (
        lambda client: client.customers.list(start_cursor="c1", limit=10, search="ada"),
        {"start_cursor": "c1", "limit": 10, "search": "ada"},
        PAGE,
    ),
    "customers.update": (
        lambda client: client.customers.update("cus_123", name="N"),
        {"customer_id": "cus_123", "name": "N"},
        CUSTOMER,
    ),
    "customers.update, all of it": (
        lambda client: client.customers.update(
            "cus_123", email="a@b.co", metadata={"k": None}, billing_controls={"spend_limits": []}
        ),
        {
            "customer_id": "cus_123",
            "email": "a@b.co",
            "metadata": {"k": None},
            "billing_controls": {"spend_limits": []},
        },
        CUSTOMER,
    ),
    "balances.check": (
        lambda client: client.balances.check("cus_123", "messages"),
        {"customer_id": "cus_123", "feature_id": "messages", "required_balance": 1},
        ALLOWED,
    ),
    "balances.check, an event": (
        lambda client: client.balances.check("cus_123", "messages", send_event=True, properties={"p": 1}),
        {
            "customer_id": "cus_123",
            "feature_id": "messages",
            "required_balance": 1,
            "properties": {"p": 1},
            "send_event": True,
        },
        ALLOWED,
    ),
    "balances.check, an entity": (
        lambda client: client.balances.check("cus_123", "messages", required_balance=3, entity_id="e1"),
        {"customer_id": "cus_123", "feature_id": "messages", "entity_id": "e1", "required_balance": 3},
        ALLOWED,
    ),
    "balances.check, a hold": (
        lambda client: client.balances.check(
            "cus_123", "messages", required_balance=3, lock=models.Lock("lock_1", expires_at=1900000000000)
        ),
        {
            "customer_id": "cus_123",
            "feature_id": "messages",
            "required_balance": 3,
            "lock": {"lock_id": "lock_1", "enabled": True, "expires_at": 1900000000000},
        },
        ALLOWED,
    ),
    "balances.check, a preview": (
        lambda client: client.balances.check("cus_123", "messages", with_preview=True),
        {"customer_id": "cus_123", "feature_id": "messages", "required_balance": 1, "with_preview": True},
        ALLOWED,
    ),
    "balances.check, nothing required": (
        lambda client: client.balances.check("cus_123", "messages", required_balance=0),
        {"customer_id": "cus_123", "feature_id": "messages", "required_balance": 0},
        ALLOWED,
    ),
    "balances.track": (
        lambda client: client.balances.track("cus_123", feature_id="messages", value=2, properties={"model": "x"}),
        {"customer_id": "cus_123", "feature_id": "messages", "value": 2, "properties": {"model": "x"}},
        TRACKED,
    ),
    "balances.track, by event name": (
        lambda client: client.balances.track("cus_123", event_name="chat"),
        {"customer_id": "cus_123", "event_name": "chat", "value": 1},
        TRACKED,
    ),
    "balances.track, credits back": (
        lambda client: client.balances.track("cus_123", feature_id="messages", value=-1),
        {"customer_id": "cus_123", "feature_id": "messages", "value": -1},
        TRACKED,
    ),
    "balances.track, past the end": (
        lambda client: client.balances.track(
            "cus_123", feature_id="messages", entity_id="e1", overage_behavior="overflow"
        ),
        {
            "customer_id": "cus_123",
            "feature_id": "messages",
            "entity_id": "e1",
            "value": 1,
            "overage_behavior": "overflow",
        },
        TRACKED,
    ),
    "balances.finalize": (
        lambda client: client.balances.finalize("lock_1", "confirm", override_value=2),
        {"lock_id": "lock_1", "action": "confirm", "override_value": 2},
        {"success": True},
    ),
    "balances.finalize, nothing to keep": (
        lambda client: client.balances.finalize("lock_1", "confirm", override_value=Decimal(0)),
        {"lock_id": "lock_1", "action": "confirm", "override_value": 0},
        {"success": True},
    ),
    "balances.finalize, a release": (
        lambda client: client.balances.finalize("lock_1", "release"),
        {"lock_id": "lock_1", "action": "release"},
        {"success": True},
    ),
    "balances.track_tokens": (
        lambda client: client.balances.track_tokens(
            "cus_123", model_id="anthropic/claude-opus-4-8", input_tokens=10, output_tokens=5, cache_read_tokens=3
        ),
        {
            "customer_id": "cus_123",
            "model_id": "anthropic/claude-opus-4-8",
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_tokens": 3,
        },
        TRACKED,
    ),
    "balances.track_tokens, one side only": (
        lambda client: client.balances.track_tokens(
            "cus_123", feature_id="ai", model_id="m", input_tokens=0, output_tokens=5, properties={"p": 1}
        ),
        {
            "customer_id": "cus_123",
            "feature_id": "ai",
            "model_id": "m",
            "input_tokens": 0,
            "output_tokens": 5,
            "properties": {"p": 1},
        },
        TRACKED,
    ),
    "events.list": (lambda client: client.events.list(), {"start_cursor": "", "limit": 50}, PAGE),
    "events.list, of one customer": (
        lambda client: client.events.list(customer_id="cus_123", feature_id="messages", limit=10),
        {"start_cursor": "", "limit": 10, "customer_id": "cus_123", "feature_id": "messages"},
        PAGE,
    ),
    "events.list, a range": (
        lambda client: client.events.list(start=0, end=1900000000000),
        {"start_cursor": "", "limit": 50, "custom_range": {"start": 0, "end": 1900000000000}},
        PAGE,
    ),
    "events.aggregate": (
        lambda client: client.events.aggregate("cus_123", "messages", range="30d", bin_size="day"),
        {"customer_id": "cus_123", "feature_id": "messages", "range": "30d", "bin_size": "day"},
        {"list": [], "total": {}},
    ),
    "events.aggregate, by model": (
        lambda client: client.events.aggregate("cus_123", ["messages", "seats"], group_by="properties.model"),
        {"customer_id": "cus_123", "feature_id": ["messages", "seats"], "group_by": "properties.model"},
        {"list": [], "total": {}},
    ),
    "events.aggregate, of one charge": (
        lambda client: client.events.aggregate(
            "cus_123", "messages", entity_id="e1", filter_by={"charge_id": "c1"}, start=0, end=1900000000000
        ),
        {
            "customer_id": "cus_123",
            "feature_id": "messages",
            "entity_id": "e1",
            "filter_by": {"charge_id": "c1"},
            "custom_range": {"start": 0, "end": 1900000000000},
        },
        {"list": [], "total": {"messages": {"count": 2, "sum": 0}}},
    ),
    "customers.update, emptied": (
        lambda client: client.customers.update("cus_123", name=None, fingerprint=None),
        {"customer_id": "cus_123", "name": None, "fingerprint": None},
        CUSTOMER,
    ),
    "customers.delete": (
        lambda client: client.customers.delete("cus_123"),
        {"customer_id": "cus_123", "delete_in_stripe": False},
        DONE,
    ),
    "balances.track, in the past": (
        lambda client: client.balances.track("cus_123", feature_id="messages", timestamp=1900000000000),
        {"customer_id": "cus_123", "feature_id": "messages", "value": 1, "timestamp": 1900000000000},
        TRACKED,
    ),
    "balances.track_tokens, every pool": (
        lambda client: client.balances.track_tokens(
            "cus_123",
            model_id="m",
            input_tokens=1,
            output_tokens=2,
            cache_read_tokens=3,
            cache_write_tokens=4,
            audio_input_tokens=5,
            audio_output_tokens=6,
            reasoning_tokens=7,
            entity_id="e1",
            overage_behavior="overflow",
            timestamp=1900000000000,
        ),
        {
            "customer_id": "cus_123",
            "entity_id": "e1",
            "model_id": "m",
            "input_tokens": 1,
            "output_tokens": 2,
            "cache_read_tokens": 3,
            "cache_write_tokens": 4,
            "audio_input_tokens": 5,
            "audio_output_tokens": 6,
            "reasoning_tokens": 7,
            "overage_behavior": "overflow",
            "timestamp": 1900000000000,
        },
        TRACKED,
    ),
    "balances.batch_track": (
        lambda client: client.balances.batch_track(
            [
                models.TrackEvent(customer_id="cus_123", feature_id="messages", value=Decimal("0.1")),
                models.TrackEvent(customer_id="cus_124", event_name="chat", entity_id="e1", timestamp=5),
            ]
        ),
        [
            {"customer_id": "cus_123", "feature_id": "messages", "value": 0.1},
            {"customer_id": "cus_124", "event_name": "chat", "entity_id": "e1", "value": 1, "timestamp": 5},
        ],
        DONE,
    ),
    "balances.create": (
        lambda client: client.balances.create(
            "cus_123",
            "messages",
            included_grant=10,
            reset="month",
            reset_count=2,
            expires_at=1900000000000,
            entity_id="e1",
            balance_id="b1",
        ),
        {
            "customer_id": "cus_123",
            "feature_id": "messages",
            "entity_id": "e1",
            "included_grant": 10,
            "reset": {"interval": "month", "interval_count": 2},
            "expires_at": 1900000000000,
            "balance_id": "b1",
        },
        DONE,
    ),
    "balances.create, unlimited": (
        lambda client: client.balances.create("cus_123", "messages", unlimited=True),
        {"customer_id": "cus_123", "feature_id": "messages", "unlimited": True},
        DONE,
    ),
    "balances.update": (
        lambda client: client.balances.update("cus_123", "messages", add_to_balance=-3, balance_id="b1"),
        {"customer_id": "cus_123", "feature_id": "messages", "add_to_balance": -3, "balance_id": "b1"},
        DONE,
    ),
    "balances.update, to nothing": (
        lambda client: client.balances.update("cus_123", "messages", remaining=0, expires_at=5),
        {"customer_id": "cus_123", "feature_id": "messages", "remaining": 0, "expires_at": 5},
        DONE,
    ),
    "balances.delete": (
        lambda client: client.balances.delete("cus_123", balance_id="b1"),
        {"customer_id": "cus_123", "balance_id": "b1"},
        DONE,
    ),
    "events.list, of an entity": (
        lambda client: client.events.list(customer_id="cus_123", entity_id="e1"),
        {"customer_id": "cus_123", "entity_id": "e1", "start_cursor": "", "limit": 50},
        PAGE,
    ),
}
