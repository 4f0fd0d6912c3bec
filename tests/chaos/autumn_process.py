"""The emulator in a process of its own, which now and then does not listen.

python -m chaos.autumn_process FOLDER PORT
"""

import asyncio
import random
import signal
import sys
from pathlib import Path

import uvicorn

from chaos.settings import CATALOG
from fastapi_autumn.emulator import Emulator

UP_SECONDS = (4.0, 9.0)
DOWN_SECONDS = (0.1, 0.4)


async def serve(folder: Path, port: int) -> None:
    """Serve, break off, leave the port closed for a moment, serve again; SIGUSR1 makes it steady."""
    app = Emulator(folder / "autumn.db", catalog=CATALOG)
    chance = random.Random(port)
    steady = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, steady.set)
    while True:
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({serving, asyncio.create_task(steady.wait())}, timeout=chance.uniform(*UP_SECONDS))
        if steady.is_set():
            await serving
            return
        server.should_exit = server.force_exit = True
        await serving
        await asyncio.sleep(chance.uniform(*DOWN_SECONDS))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
