"""The hierarchy of errors is the picture in its module, and each error says what it is about."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from fastapi_autumn import errors
from fastapi_autumn.errors import (
    AmountError,
    AutumnError,
    ConfigurationError,
    CustomerNotFound,
    DuplicateRequest,
    InsufficientCredits,
    LockAlreadyExists,
    LockNotClaimable,
    NoAnswer,
    NotEntitled,
    RateLimited,
    Refused,
    RequestRejected,
    Unavailable,
    Uncertain,
    UnknownModel,
    rejection,
)


def drawn() -> dict[str, str]:
    """Class to base, as the picture in the module's docstring shows it."""
    bases: dict[str, str] = {}
    path = ["AutumnError"]
    for line in str(inspect.getdoc(errors)).splitlines():
        if branch := re.match(r"    ((?:│   |    )*)[├└]── (\w+)", line):
            depth = len(branch[1]) // 4 + 1
            path[depth:] = [branch[2]]
            bases[branch[2]] = path[depth - 1]
    return bases


def defined() -> dict[str, type[AutumnError]]:
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}


def test_the_picture_is_the_hierarchy() -> None:
    """Who reads the picture knows which `except` catches what."""
    actual = {name: kind.__mro__[1].__name__ for name, kind in defined().items() if kind is not AutumnError}
    assert len(actual) > 20
    assert drawn() == actual


def test_every_error_is_public_and_explained() -> None:
    """Each class can be imported by name and says what happened or what to do."""
    assert {*defined(), "rejection"} == set(errors.__all__)
    assert [name for name, kind in defined().items() if not kind.__doc__] == []


def test_an_amount_error_is_a_value_error() -> None:
    """Callers that validate input by `except ValueError` need not know this package."""
    assert issubclass(AmountError, ValueError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("customer_not_found", CustomerNotFound),
        ("lock_already_exists", LockAlreadyExists),
        ("duplicate_idempotency_key", DuplicateRequest),
        ("feature_not_found", RequestRejected),
        ("", RequestRejected),
    ],
)
def test_autumns_code_decides_the_class_of_a_4xx(code: str, kind: type[RequestRejected | Uncertain]) -> None:
    """The code is what Autumn promises; the status alone does not tell a customer from a feature."""
    error = rejection("balances.check", status=404, code=code, message="text")
    assert type(error) is kind
    assert (error.operation, error.status, error.code, error.message) == ("balances.check", 404, code, "text")


def test_what_is_said_about_an_earlier_attempt_is_no_answer_to_this_one() -> None:
    """A 409 under our own key or lock id leaves it open what became of the attempt that took it."""
    for kind in (DuplicateRequest, LockAlreadyExists, LockNotClaimable):
        assert issubclass(kind, Uncertain)
        assert not issubclass(kind, RequestRejected)


EXAMPLES: list[AutumnError] = [
    AutumnError("text"),
    ConfigurationError("text"),
    AmountError("text"),
    InsufficientCredits("Not enough.", model="m", required=3),
    rejection("balances.check", status=404, code="customer_not_found", message="text"),
    rejection("balances.check", status=409, code="duplicate_idempotency_key", message="text"),
    RateLimited("balances.check", "429", retry_after=2.0),
    NoAnswer("balances.check", "no answer", timed_out=True),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(error: AutumnError, protocol: int) -> None:
    """A pool of processes, or a queue of jobs, hands on the error that happened and not one about pickling."""
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Refused, "refused"),
        (InsufficientCredits, "insufficient_credits"),
        (UnknownModel, "unknown_model"),
        (NotEntitled, "not_entitled"),
    ],
)
def test_a_refusal_has_a_stable_code_and_details(kind: type[Refused], code: str) -> None:
    """Front ends switch on the code, so it is part of the interface."""
    error = kind("Not enough credits.", model="gpt-4o", required=3)
    assert (error.code, error.message, error.detail) == (
        code,
        "Not enough credits.",
        {"model": "gpt-4o", "required": 3},
    )
    assert str(error) == "Not enough credits."


def test_unavailable_says_what_failed_and_when_to_come_back() -> None:
    """A handler can answer 503 with Retry-After from the error alone."""
    error = RateLimited("balances.check", "Autumn answered 429", retry_after=2.0)
    assert (str(error), error.operation, error.reason, error.retry_after) == (
        "balances.check: Autumn answered 429",
        "balances.check",
        "Autumn answered 429",
        2.0,
    )
    assert NoAnswer("balances.check", "no answer within 5 s", timed_out=True).timed_out
    assert NoAnswer("balances.check", "the connection broke").retry_after is None


@pytest.mark.parametrize("kind", defined().values())
def test_one_except_catches_everything(kind: type[Any]) -> None:
    """`except AutumnError` is enough for who does not care which."""
    assert issubclass(kind, AutumnError)
    assert not (issubclass(kind, ConfigurationError) and issubclass(kind, Unavailable))
