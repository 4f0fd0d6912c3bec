"""What an operator sees of charges and refusals."""

from typing import Any

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fastapi_autumn import ModelCharge
from service import Service

reader = InMemoryMetricReader()


def counted() -> dict[tuple[str, ...], int]:
    """Every counter's value, by its name and its attribute, if it has one."""
    data = reader.get_metrics_data()
    return {
        (metric.name, *point.attributes.values()): point.value
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        if scope.scope.name == "fastapi_autumn"
        for metric in scope.metrics
        for point in metric.data.data_points
    }


async def test_charges_and_refusals_are_counted(tmp_path):
    """Kept, refunded and settled charges, each kind of refusal, and shortfalls are counted as OpenTelemetry metrics."""
    metrics.set_meter_provider(MeterProvider([reader]))
    service = Service(tmp_path, prices={"small": 1, "huge": 51})

    @service.app.post("/ai/{how}")
    async def chat(how: str, charge: ModelCharge) -> Any:
        if how == "raises":
            raise ValueError(how)
        if how == "settles":
            charge.settle("0.5")
        return "served"

    async with service.calling() as client:
        async with service.autumn.charge("bob", "small") as charge:
            charge.settle(51)
        await service.autumn.settled()
        for how in ("serves", "serves", "raises", "settles"):
            await client.post(f"/ai/{how}", json={"model": "small"})
        await client.post("/ai/serves", json={"model": "huge"})
        await client.post("/ai/serves", json={"model": "unheard-of"})
        await client.post("/ai/serves", json={"model": "small"}, headers={"x-user": ""})
        await client.post("/ai/serves", content=b" " * (service.settings.max_body_bytes + 1))

    observing = Service(tmp_path, prices={"huge": 51}, mode="observe")
    async with observing.calling(), observing.autumn.charge("ada", "huge"):
        pass

    assert counted() == {
        ("autumn.charges", "kept"): 3,
        ("autumn.charges", "refunded"): 1,
        ("autumn.charges", "settled"): 2,
        ("autumn.observed", "insufficient_credits"): 1,
        ("autumn.refusals", "body_too_large"): 1,
        ("autumn.refusals", "insufficient_credits"): 1,
        ("autumn.refusals", "not_authenticated"): 1,
        ("autumn.refusals", "unknown_model"): 1,
        ("autumn.shortfalls",): 1,
    }
