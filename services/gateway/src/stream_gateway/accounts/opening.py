"""The store, opened: the database is there and has the newest tables."""

from stream_core.errors import ConfigError
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.migrating import migrate
from stream_gateway.accounts.store import Store
from stream_gateway.settings import GatewaySettings


async def open_store(settings: GatewaySettings) -> tuple[Database, Store]:
    """Connect and migrate; whoever calls closes the database.

    Raises:
        ConfigError: a setting is wrong.
        AccountsAway: the database does not answer.
    """
    database = Database.of(settings)
    if database is None:
        raise ConfigError("there is no store of accounts", param="store_url")
    try:
        await migrate(database)
    except BaseException:
        await database.aclose()
        raise
    return database, Store(database)
