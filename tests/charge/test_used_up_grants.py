"""Credits that Autumn cannot put back where they came from."""

from decimal import Decimal
from typing import Any

import pytest

from fastapi_autumn import Customer
from service import Service


async def with_a_grant_of(service: Service, amount: int, **how: Any) -> None:
    """Leave a customer with nothing but a grant of this size, so that nothing else takes its credits back."""
    client = service.autumn.client
    await client.customers.get_or_create(Customer("ada"))
    service.emulator.call("balances.delete", {"customer_id": "ada", "feature_id": "ai_credits"})
    await client.balances.create("ada", "ai_credits", included_grant=amount, **how)


async def left(service: Service) -> Decimal:
    await service.autumn.settled()
    record = await service.autumn.client.customers.get("ada")
    return record.balances["ai_credits"].remaining


async def fail(service: Service, **how: Any) -> None:
    """Make a call that costs ten and fails."""
    with pytest.raises(ValueError, match="model"):
        async with service.autumn.charge("ada", "ten", **how):
            raise ValueError("model")


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_a_used_up_grant_comes_back_as_a_new_one(tmp_path, charging):
    """A failed call that used up a grant of its own leaves the customer with as much as before, for as long."""
    service = Service(tmp_path, prices={"ten": 10}, charging=charging)
    async with service.autumn.running() as runtime:
        ends_at = runtime.outbox.now() + 1_000_000
        await with_a_grant_of(service, 10, expires_at=ends_at)

        await fail(service)

        assert await left(service) == 10
        assert await runtime.outbox.store.list() == []
        record = await service.autumn.client.customers.get("ada")
        assert [(part.plan_id, part.expires_at) for part in record.balances["ai_credits"].breakdown] == [
            (None, ends_at)
        ]


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_a_grant_that_has_something_left_takes_its_credits_back(tmp_path, charging):
    """Where Autumn can put the credits back, nothing is granted."""
    service = Service(tmp_path, prices={"ten": 10}, charging=charging)
    async with service.autumn.running():
        await with_a_grant_of(service, 15)

        await fail(service)

        assert await left(service) == 15
        record = await service.autumn.client.customers.get("ada")
        assert [part.included_grant for part in record.balances["ai_credits"].breakdown if part.plan_id is None] == [15]


async def test_what_cannot_come_back_is_a_shortfall(tmp_path):
    """A refund that moves less than it should, for a reason that no grant mends, is kept for a person, with why."""
    service = Service(tmp_path, prices={"ten": 10})
    async with service.autumn.running() as runtime:
        async with service.autumn.charge("ada", "ten") as charge:
            # Somebody gives credits back by hand, so that less is used than this call has taken.
            await runtime.client.balances.track("ada", feature_id="ai_usage", value=Decimal(-7))
            charge.refund()
        await service.autumn.settled()

        (row,) = await runtime.outbox.store.list()
        assert (row.state, row.entry.taken, row.entry.cost) == ("shortfall", 7, 0)
        assert "did not move -7" in (row.entry.last_error or "")


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_a_usage_limit_comes_back(tmp_path, charging):
    """A customer with a usage limit is held and not deducted from, because Autumn gives no limit back to a refund."""
    service = Service(tmp_path, prices={"ten": 10}, charging=charging)
    limit = {"feature_id": "ai_credits", "enabled": True, "limit": 10, "interval": "month"}
    async with service.autumn.running() as runtime:
        await runtime.client.customers.get_or_create(Customer("ada"))
        await runtime.client.customers.update("ada", billing_controls={"usage_limits": [limit]})

        await fail(service)
        await service.autumn.settled()

        async with service.autumn.charge("ada", "ten") as charge:
            assert charge.credits == 10
