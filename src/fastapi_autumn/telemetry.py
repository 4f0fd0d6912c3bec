"""What an operator should see, as OpenTelemetry metrics. Without an OpenTelemetry SDK they cost next to nothing."""

from opentelemetry import metrics

__all__ = ["charges", "observed", "outbox_unwritten", "refusals", "shortfalls"]

_meter = metrics.get_meter("fastapi_autumn")

charges = _meter.create_counter(
    "autumn.charges", unit="{charge}", description="Charges that were closed, by outcome: kept, refunded, settled."
)
refusals = _meter.create_counter(
    "autumn.refusals", unit="{call}", description="Calls that were refused, by code, such as insufficient_credits."
)
observed = _meter.create_counter(
    "autumn.observed",
    unit="{call}",
    description="Calls that AUTUMN_MODE=observe let through and that would have been refused, by code.",
)
outbox_unwritten = _meter.create_counter(
    "autumn.outbox.unwritten",
    unit="{write}",
    description="Failed writes of the outbox; entries wait in memory.",
)
shortfalls = _meter.create_counter(
    "autumn.shortfalls",
    unit="{charge}",
    description="Charges that Autumn cannot be brought to what they should come to; a person has to look at them.",
)
