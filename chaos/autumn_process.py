"""The emulator in a process of its own, which now and then does not listen.

python -m chaos.autumn_process FOLDER PORT STEADY

SIGUSR1 makes it steady, as STEADY=1 does from the beginning; its event log stays behind.
"""

import asyncio
import random
import signal
import sys
from pathlib import Path

import uvicorn

from chaos.between import Between
from chaos.settings import CATALOG, COUNTS, report
from fastapi_autumn.emulator import Emulator

UP_SECONDS = (4.0, 9.0)
DOWN_SECONDS = (0.1, 0.4)


async def serve(folder: Path, port: int, *, steady: bool) -> None:
    """Serve, break off, leave the port closed for a moment, serve again."""
    chance = random.Random(port)
    app = Between(Emulator(folder / "autumn.db", catalog=CATALOG), folder, chance)
    app.steady = steady
    calmed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, calmed.set)
    if steady:
        calmed.set()
    while True:
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({serving, asyncio.create_task(calmed.wait())}, timeout=chance.uniform(*UP_SECONDS))
        if calmed.is_set():
            app.steady = True
            await serving
            return
        report(folder, COUNTS, "Autumn_away")
        server.should_exit = server.force_exit = True
        await serving
        await asyncio.sleep(chance.uniform(*DOWN_SECONDS))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), steady=sys.argv[3] == "1"))
