"""The application of the outcomes, for a server that runs in a process of its own: `outcome_process:app`.

`AUTUMN_TEST_FOLDER` says where its outbox is.
"""

import os
from pathlib import Path
from typing import Any

from outcome_routes import service_with_routes

service = service_with_routes(Path(os.environ.pop("AUTUMN_TEST_FOLDER")), inner=False)
app = service.app


@app.get("/used/{customer}")
async def used(customer: str) -> Any:
    return str(await service.used(customer))


@app.get("/closed")
async def closed() -> Any:
    return service.closed
