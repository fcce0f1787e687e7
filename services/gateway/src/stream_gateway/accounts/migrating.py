"""Brings the tables to their newest form: by one replica, while the others wait."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, inspect, text

from stream_gateway.accounts.database import Database

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

HEAD: Final = "0003"
"""The newest revision: Alembic, which is slow to load, is loaded only when the database has another one."""
MIGRATIONS: Final = Path(__file__).with_name("migrations")
_LOCK: Final = 7_262_133_001
"""Of PostgreSQL's advisory locks; any number that nobody else takes."""
_PATIENCE_S: Final = 300.0
_PAUSE_S: Final = 0.1
_log = logging.getLogger(__name__)


async def migrate(database: Database, target: str = "head") -> str:
    """Bring the tables to a revision; what is newer than this program stays as it is.

    Args:
        database: where.
        target: a revision, or "head".

    Returns:
        The revision that they were at before; empty: there were none.

    Raises:
        AccountsAway: the database does not answer.
    """
    if target == "head":
        async with database.reading() as connection:
            if await connection.run_sync(current) == HEAD:
                return HEAD
    await asyncio.to_thread(_load)
    async with database.writing(_PATIENCE_S) as connection:
        if not database.sqlite:  # there, who writes has the file to themselves
            while not await connection.scalar(  # noqa: ASYNC110  (the lock of another process)
                text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK}
            ):
                await asyncio.sleep(_PAUSE_S)
        return await connection.run_sync(upgrade, target)


def current(connection: Connection) -> str:
    """Tell the tables' revision; empty: there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def known() -> list[str]:
    """List the revisions of this program, the oldest first."""
    scripts, _ = _scripts()
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _load() -> None:
    """Load what is slow to load, and rarely needed, before anybody waits for the lock."""
    import alembic.runtime.environment  # noqa: PLC0415
    import alembic.script  # noqa: F401, PLC0415


def _scripts() -> "tuple[ScriptDirectory, Config]":
    from alembic.config import Config  # noqa: PLC0415  (as above)
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    logging.getLogger("alembic").setLevel(logging.WARNING)  # what it tells of itself; what was done is said below
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("version_locations", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config), config


def upgrade(connection: Connection, target: str) -> str:
    """Bring the tables to a revision, within a transaction of the caller; see `migrate`."""
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415

    scripts, config = _scripts()
    before = current(connection)
    if before and before not in {script.revision for script in scripts.walk_revisions()}:
        # Of a newer program, in the middle of a rollout: newer revisions only add.
        _log.warning("the accounts' tables are of a newer version and stay so", extra={"revision": before})
        return before

    def steps(at: Any, _context: object) -> Any:
        return scripts._upgrade_revs(target, at)  # noqa: SLF001  (what alembic's own command calls)

    with EnvironmentContext(config, scripts, fn=steps, destination_rev=target) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()
    if (now := current(connection)) != before:
        _log.info("the accounts' tables were brought up to date", extra={"before": before, "now": now})
    return before
