"""What has to be there before a call, set up over HTTP."""

from cli.processes import Server


def prepare(server: Server, what: str) -> None:
    """Bring an emulator with the recorded catalog and the customer cus_123 into a situation."""
    customer = {"customer_id": "cus_123"}
    lock = {"lock_id": "lock_1", "enabled": True}
    if what == "clock":
        now = server.call("/emulator/clock", {"seconds": 0})["now"]
        server.call("/emulator/clock", {"milliseconds": 1_900_000_000_000 - 3_600_000 - now})
    elif what == "entity":
        prepare(server, "pro")
        server.call("/v1/entities.create", customer | {"entity_id": "e1", "name": "E", "feature_id": "seats"})
    elif what == "lock":
        body = customer | {"feature_id": "messages", "required_balance": 3, "lock": lock}
        assert server.call("/v1/balances.check", body)["allowed"]
    elif what == "no plan":
        server.call("/v1/plans.delete", {"plan_id": "pro_annual"})
        server.call("/v1/plans.delete", {"plan_id": "pro"})
    elif what == "nothing":
        server.call("/emulator/reset")
    elif what == "own balance":
        server.call("/v1/balances.create", customer | {"feature_id": "messages", "included_grant": 5})
    elif what == "pro":
        server.call("/v1/billing.attach", customer | {"plan_id": "pro", "no_billing_changes": True})
    elif what == "tokens":
        server.call("/v1/balances.create", customer | {"feature_id": "ai_credits", "included_grant": 10})
    elif what == "unused":
        prepare(server, "nothing")
        body = {"feature_id": "messages", "name": "M", "type": "metered", "consumable": True}
        server.call("/v1/features.create", body)
    else:
        assert what == "unverified"
        server.fault("balances.check", kind="unverified")
