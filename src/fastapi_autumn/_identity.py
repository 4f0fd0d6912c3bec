"""Who pays: the one place that turns what an application knows about its caller into a customer of Autumn's."""

import logging
from dataclasses import replace
from uuid import UUID

from starlette.authentication import SimpleUser
from starlette.requests import HTTPConnection

from fastapi_autumn.customers import is_customer_id
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.models import Customer

__all__ = ["customer_from", "entity_from", "from_request_user"]

_log = logging.getLogger("fastapi_autumn")


def customer_from(identity: object) -> Customer | None:
    """Return the customer whom `identity` names, or None when it names nobody.

    An id that Autumn would refuse, or take for somebody else, names nobody. Integers and UUIDs are written out.

    Raises:
        TypeError: It is something else, such as a user object: only the application knows which of its fields is the
            id.
    """
    if identity is None:
        return None
    customer = identity if isinstance(identity, Customer) else Customer(_id_from(identity))
    # Nothing checks the type of a dataclass's field, and ids that are integers or UUIDs are common.
    customer_id = _id_from(customer.id)
    if customer_id is not customer.id:
        customer = replace(customer, id=customer_id)
    if is_customer_id(customer.id):
        return customer
    _log.warning("a customer id that Autumn would refuse or mistake is taken for nobody")
    return None


def entity_from(identity: object) -> str | None:
    """Return the id of the entity that `identity` names, or None. Integers and UUIDs are written out.

    Raises:
        TypeError: It is something else.
    """
    try:
        return None if identity is None else _id_from(identity)
    except TypeError:
        kind = type(identity).__name__
        raise TypeError(f"an entity is an id, or None for none, and not {kind}: return str(team.id)") from None


def from_request_user(connection: HTTPConnection) -> object:
    """Return the identity of Starlette's `request.user`, or None if they are not authenticated.

    A `display_name` is not taken instead: two users may share one, and they would share a balance.

    Raises:
        ConfigurationError: No AuthenticationMiddleware has run before, or its users have no `identity`.
    """
    if "user" not in connection.scope:
        raise ConfigurationError(
            "AutumnMiddleware does not know who is calling. Pass identify=..., a function from the connection to a "
            "Customer or an id; or add Starlette's AuthenticationMiddleware after it, so that it runs before; or pass "
            "identify=None when each CreditGate has its own customer=..."
        )
    user = connection.user
    if not user.is_authenticated:
        return None
    if isinstance(user, SimpleUser):
        # Its `identity` is missing in older versions of Starlette; its user name is the one thing that it has.
        return user.username
    try:
        return user.identity
    except NotImplementedError:
        raise ConfigurationError(
            f"{type(user).__name__} has no `identity`, and its display_name may be shared by several users. Implement "
            "`identity`, or pass identify=lambda connection: str(connection.user.id) to AutumnMiddleware."
        ) from None


def _id_from(identity: object) -> str:
    if isinstance(identity, str):
        return identity
    if isinstance(identity, int | UUID) and not isinstance(identity, bool):
        return str(identity)
    raise TypeError(
        f"a customer is a Customer, an id, or None for nobody, and not {type(identity).__name__}: "
        "return Customer(str(user.id)), with the field that never changes"
    )
