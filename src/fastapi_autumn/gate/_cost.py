"""Saying at the end of a stream what it came to, which no header can say at its beginning."""

import json
from collections.abc import AsyncIterable, AsyncIterator

from fastapi_autumn.charge import Charge
from fastapi_autumn.pricing import to_json_number
from fastapi_autumn.settlement import Outcome

__all__ = ["cost_event", "with_cost"]


def cost_event(charge: Charge, *, event: str = "autumn.cost") -> str:
    """Return the server-sent event that says what a call costs if it ends well now.

    Its data is JSON: `charged` in credits, and `used`, the counts by kind. Send it when everything is reported, as the
    last event of the stream.
    """
    data = {"charged": to_json_number(charge.cost_after(Outcome.DONE)), "used": charge.counts.shown()}
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"


async def with_cost(
    stream: AsyncIterable[str | bytes], charge: Charge, *, event: str = "autumn.cost"
) -> AsyncIterator[str | bytes]:
    """Pass an event stream on, and end it with the `cost_event`. A stream that fails ends without one."""
    async for part in stream:
        yield part
    yield cost_event(charge, event=event)
