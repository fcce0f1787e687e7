"""What can be wrong with the store of files and batches."""

from stream_core.errors import ConfigError, LocalError, RemoteError


class StoreAway(RemoteError):
    """It can't be reached now."""

    code = "store_unavailable"
    status_hint = 503


class Conflict(RemoteError):
    """Something else stands there already."""

    code = "conflict"


class NoJetStream(ConfigError):
    """The broker has JetStream switched off."""


class NotConfigured(LocalError):
    """This deployment keeps no files and runs no batches; the message names the setting."""

    code = "batches_not_configured"
    status_hint = 404
