"""A small model of Autumn's books, for the lean layer: one balance for each customer and feature, holds, and a log.

It answers the few operations that move or show credits, with the fields that the package reads. A test plays the same
requests to it and to the emulator, and compares every field that it has.
"""

from decimal import Decimal
from typing import Any

from pydantic_core import to_json

from simulation.application import FEATURES
from simulation.autumn import Asked, Reply, refuse
from simulation.world import EPOCH_MS, World

__all__ = ["ModelBooks"]

_HEADERS = {"content-type": "application/json"}
_HOUR_MS = 3_600_000
_NOTHING = Decimal(0)


class ModelBooks:
    """The books of one organisation.

    Args:
        world: Whose time it is.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.used: dict[tuple[str, str], Decimal] = {}
        self.customers: dict[str, int] = {}
        self.events: list[dict[str, Any]] = []
        self._holds: dict[str, dict[str, Any]] = {}
        self._claimed: dict[str, int] = {}

    def now(self) -> int:
        return EPOCH_MS + int(self.world.now * 1000)

    def answer(self, request: Asked) -> Reply:
        self.tick()
        body = request.body
        match request.operation:
            case "balances.check":
                return self._check(body)
            case "balances.track":
                return self._track(body)
            case "balances.finalize":
                return self._finalize(body)
            case "customers.get_or_create":
                return self._customer(body["customer_id"])
            case "events.aggregate":
                return self._aggregate(body)
            case "events.list":
                return self._list(body)
            case "organization/me":
                return _ok({"id": "org_emulator", "name": "Emulator", "slug": "emulator", "env": "sandbox"})
        raise NotImplementedError(request.operation)

    def holds(self) -> set[str]:
        return set(self._holds)

    def tick(self) -> None:
        """End the holds whose time is up."""
        now = self.now()
        for lock_id in [id_ for id_, hold in self._holds.items() if (hold["expires_at"] or now + 1) <= now]:
            hold = self._holds[lock_id]
            if self._is_claimed(lock_id, hold["expires_at"]):
                hold["expires_at"] = None
            else:
                self._claimed[lock_id] = hold["expires_at"] + _HOUR_MS
                self._close(lock_id, _NOTHING)

    def balance(self, customer: str, feature: str) -> dict[str, Any]:
        granted, used = FEATURES[feature], self.used.get((customer, feature), _NOTHING)
        return {
            "feature_id": feature,
            "granted": granted,
            "remaining": _number(granted - used),
            "usage": _number(used),
            "unlimited": False,
            "overage_allowed": False,
            "max_purchase": None,
        }

    def _customer(self, customer: str) -> Reply:
        created_at = self.customers.setdefault(customer, self.now())
        return _ok({"id": customer, "created_at": created_at, "env": "sandbox"})

    def _check(self, body: dict[str, Any]) -> Reply:
        customer, feature = body["customer_id"], body["feature_id"]
        if customer not in self.customers:
            return _unknown(customer)
        lock = body.get("lock") or {}
        lock_id = lock.get("lock_id")
        asked = _amount(body.get("required_balance", 1))
        left = FEATURES[feature] - self.used.get((customer, feature), _NOTHING)
        allowed = left >= asked
        if allowed and lock_id in self._holds:
            return refuse(409, "lock_already_exists", "A lock with this ID already exists")
        if allowed and (lock_id or body.get("send_event")):
            self._move(customer, feature, asked)
            if lock_id and (lock["expires_at"] is None or lock["expires_at"] > self.now()):
                hold = {"customer": customer, "feature": feature, "asked": asked, "expires_at": lock["expires_at"]}
                self._holds[lock_id] = hold | {"properties": body.get("properties") or {}}
            self._event(customer, feature, asked, asked, body.get("properties"))
        answer = {"allowed": allowed, "customer_id": customer, "required_balance": _number(asked)}
        return _ok(answer | {"balance": self.balance(customer, feature), "flag": None})

    def _track(self, body: dict[str, Any]) -> Reply:
        customer, feature, value = body["customer_id"], body["feature_id"], _amount(body["value"])
        if customer not in self.customers:
            return _unknown(customer)
        moved = self._settle(customer, feature, value)
        self._event(customer, feature, value, moved, body.get("properties"))
        answer = {"customer_id": customer, "value": _number(value), "balance": self.balance(customer, feature)}
        return _ok(answer | {"deductions": _deductions(feature, moved)})

    def _settle(self, customer: str, feature: str, value: Decimal) -> Decimal:
        """Move what can be moved: not more than there is, and not more back than was used."""
        used = self.used.get((customer, feature), _NOTHING)
        moved = min(value, FEATURES[feature] - used) if value > 0 else max(value, -used)
        self._move(customer, feature, moved)
        return moved

    def _finalize(self, body: dict[str, Any]) -> Reply:
        lock_id = body["lock_id"]
        hold = self._holds.get(lock_id)
        if hold is None:
            if not self._is_claimed(lock_id, self.now()):
                self._claimed[lock_id] = self.now() + _HOUR_MS
            return refuse(400, "invalid_request", f"Lock not found for ID: {lock_id}")
        if self._is_claimed(lock_id, self.now()):
            return refuse(409, "invalid_request", "Lock receipt not claimable: RESERVATION_ALREADY_PROCESSING")
        override = body.get("override_value")
        final = _NOTHING if body["action"] == "release" else hold["asked"] if override is None else _amount(override)
        if body.get("properties") is not None:
            hold["properties"] = body["properties"]
        self._close(lock_id, final)
        return _ok({"success": True})

    def _is_claimed(self, lock_id: str, at: int) -> bool:
        return self._claimed.get(lock_id, 0) > at

    def _close(self, lock_id: str, final: Decimal) -> None:
        hold = self._holds.pop(lock_id)
        difference = final - hold["asked"]
        if difference:
            if difference < 0:
                # What a hold took is put back where it was taken, whatever else came back there meanwhile.
                moved = difference
                self._move(hold["customer"], hold["feature"], moved)
            else:
                moved = self._settle(hold["customer"], hold["feature"], difference)
            self._event(hold["customer"], hold["feature"], difference, moved, hold["properties"])

    def _move(self, customer: str, feature: str, moved: Decimal) -> None:
        self.used[customer, feature] = self.used.get((customer, feature), _NOTHING) + moved

    def _event(
        self, customer: str, feature: str, value: Decimal, moved: Decimal, properties: dict[str, Any] | None
    ) -> None:
        self.events.append(
            {
                "id": f"evt_{len(self.events)}",
                "timestamp": self.now(),
                "feature_id": feature,
                "customer_id": customer,
                "value": _number(value),
                "properties": properties or {},
                "deductions": _deductions(feature, moved) or None,
            }
        )

    def _between(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        span, customer = body["custom_range"], body.get("customer_id")
        start, end = span["start"], span["end"]
        return [
            event
            for event in self.events
            if start <= event["timestamp"] <= end and customer in (None, event["customer_id"])
        ]

    def _aggregate(self, body: dict[str, Any]) -> Reply:
        wanted, feature = body["filter_by"], body["feature_id"]
        found = [
            _amount(event["value"])
            for event in self._between(body)
            if event["feature_id"] == feature
            and all(event["properties"].get(name) == value for name, value in wanted.items())
        ]
        total = {feature: {"count": len(found), "sum": _number(sum(found, _NOTHING))}} if found else {}
        return _ok({"list": [], "total": total})

    def _list(self, body: dict[str, Any]) -> Reply:
        cursor = body.get("start_cursor")
        last = int(cursor.removeprefix("evt_")) if cursor else len(self.events)
        found = [event for event in self._between(body) if int(event["id"].removeprefix("evt_")) < last][::-1]
        shown = found[: body["limit"]]
        return _ok({"list": shown, "next_cursor": shown[-1]["id"] if len(found) > len(shown) else None})


def _ok(answer: dict[str, Any]) -> Reply:
    return Reply(200, _HEADERS, to_json(answer), answer)


def _unknown(customer: str) -> Reply:
    return refuse(404, "customer_not_found", f"Customer {customer} not found")


def _amount(value: Any) -> Decimal:
    return Decimal(str(value))


def _number(value: Decimal) -> float | int:
    return int(value) if value == value.to_integral_value() else float(value)


def _deductions(feature: str, moved: Decimal) -> list[dict[str, Any]]:
    return [{"balance_id": f"of_{feature}", "feature_id": feature, "value": _number(moved)}] if moved else []
