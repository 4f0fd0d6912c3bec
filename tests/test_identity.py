"""Who pays: what an application may say about its caller, and what becomes of it."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, HTTPException
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.authentication import AuthenticationMiddleware

from fastapi_autumn import Charge, CreditGate, Customer, ModelCharge
from fastapi_autumn._identity import customer_from
from fastapi_autumn.middleware import from_request_user
from service import Service

AN_ID = UUID("12345678-1234-5678-1234-567812345678")


@dataclass
class Row:
    """What an object-relational mapper hands out."""

    id: int
    email: str


@pytest.mark.parametrize(
    ("identity", "customer"),
    [
        (None, None),
        ("ada", Customer("ada")),
        (7, Customer("7")),
        (0, Customer("0")),
        (AN_ID, Customer(str(AN_ID))),
        (Customer("ada", email="ada@example.com"), Customer("ada", email="ada@example.com")),
        (Customer(7, name="Ada"), Customer("7", name="Ada")),
        ("", None),
        ("two words", None),
        (Customer(""), None),
    ],
)
def test_identities(identity, customer):
    """Strings, integers, UUIDs and customers pay; None, and an id that Autumn would mistake, is nobody."""
    assert customer == customer_from(identity)


@pytest.mark.parametrize("identity", [Row(7, "ada@example.com"), {"sub": "ada"}, 7.0, b"ada", True, ("ada",)])
def test_other_objects_are_mistakes(identity):
    """An object of which nobody can tell its id is an error that says what to write instead."""
    with pytest.raises(TypeError, match=r"Customer\(str\(user\.id\)\)"):
        customer_from(identity)
    with pytest.raises(TypeError, match=type(identity).__name__):
        customer_from(Customer(identity))


def paying_service(tmp_path: Any, **settings: Any) -> Service:
    service = Service(tmp_path, **settings)

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> Any:
        return charge.customer.id

    return service


@pytest.mark.parametrize(("identity", "paid_by"), [(7, "7"), (AN_ID, str(AN_ID)), (Customer(7), "7")])
async def test_ids_are_written_out(tmp_path, identity, paid_by):
    """`identify` may return the primary key as it is in the database."""
    service = paying_service(tmp_path, identify=lambda _: identity)
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "large"})).json() == paid_by
        assert await service.used(paid_by) == 5


@pytest.mark.parametrize("kind", [HTTPException, StarletteHTTPException])
async def test_identify_may_say_what_to_answer(tmp_path, kind):
    """An HTTPException out of `identify` is the answer, as it would be out of a dependency."""

    async def identify(connection: Any) -> None:
        raise kind(403, detail="Your account is locked.", headers={"x-reason": "locked"})

    service = paying_service(tmp_path, identify=identify)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert (response.status_code, response.json()) == (403, {"detail": "Your account is locked."})
        assert response.headers["x-reason"] == "locked"


@pytest.mark.parametrize("identity", [None, "", "two words"])
async def test_nobody_in_a_dependency_is_nobody(tmp_path, identity):
    """A gate whose `customer` finds nobody is a 401, and does not charge whom the middleware has identified."""

    async def current_user() -> Any:
        return identity

    service = Service(tmp_path)

    @service.app.post("/ai/chat")
    async def chat(charge: Annotated[Charge, Depends(CreditGate(customer=current_user))]) -> Any:
        return charge.customer.id

    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "large"})

        assert response.status_code == 401
        assert await service.used("ada") == 0


class Named(BaseUser):
    """A user of an application's own."""

    is_authenticated = True
    display_name = "Alex"

    def __init__(self, key: int | None) -> None:
        self.key = key

    @property
    def identity(self) -> Any:
        if self.key is None:
            raise NotImplementedError
        return self.key


class OneUserBackend(AuthenticationBackend):
    """Signs everybody in as the same user."""

    def __init__(self, user: BaseUser) -> None:
        self.user = user

    async def authenticate(self, conn: Any) -> Any:
        return AuthCredentials(), self.user


@pytest.mark.parametrize(("user", "paid_by"), [(SimpleUser("ada"), "ada"), (Named(7), "7")])
async def test_identity_of_starlettes_user_pays(tmp_path, user, paid_by):
    """The `identity` of `request.user` pays, and the user name of a SimpleUser, which has nothing else."""
    service = paying_service(tmp_path, identify=from_request_user)
    service.app.add_middleware(AuthenticationMiddleware, backend=OneUserBackend(user))
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "large"})).json() == paid_by


async def test_display_name_is_no_identity(tmp_path):
    """Two users may share a display name, so a user without an `identity` is an error and pays nothing."""
    service = paying_service(tmp_path, identify=from_request_user)
    service.app.add_middleware(AuthenticationMiddleware, backend=OneUserBackend(Named(None)))
    async with service.calling() as client:
        assert (await client.post("/ai/chat", json={"model": "large"})).status_code == 500
        assert (await service.autumn.client.customers.list()).list == ()


async def test_an_email_that_autumn_refuses_is_left_out(tmp_path, caplog):
    """Its owner is charged all the same; the log says once whose it is, and not what it is."""
    service = Service(tmp_path, identify=lambda _: Customer("ada", name="Ada", email="nowhere"))

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> str:
        return charge.id

    async with service.calling() as client:
        for _ in range(3):
            assert (await client.post("/ai/chat", json={"model": "large"})).status_code == 200
        record = await service.autumn.client.customers.get("ada")

        assert (record.name, record.email) == ("Ada", None)
        assert caplog.text.count("ada is kept at Autumn without their e-mail address") == 1
        assert "nowhere" not in caplog.text
        assert await service.used() == 15
