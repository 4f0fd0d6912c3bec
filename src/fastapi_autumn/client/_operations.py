"""The operations, one explicit method each, with Autumn's own names for operations and fields."""

from fastapi_autumn.client._balances import Balances
from fastapi_autumn.client._billing import Billing
from fastapi_autumn.client._calls import Caller
from fastapi_autumn.client._catalog import Features, Plans
from fastapi_autumn.client._customers import Customers
from fastapi_autumn.client._entities import Entities
from fastapi_autumn.client._events import Events

__all__ = ["Operations"]


class Operations:
    """Autumn's operations in groups, and `call` and `get` for the rest."""

    def __init__(self, caller: Caller) -> None:
        self.call = caller.call
        self.get = caller.get
        self.customers = Customers(caller)
        self.balances = Balances(caller)
        self.entities = Entities(caller)
        self.events = Events(caller)
        self.features = Features(caller)
        self.plans = Plans(caller)
        self.billing = Billing(caller)
