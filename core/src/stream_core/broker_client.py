"""nats-py's names, imported in one place.

nats-py imports aiohttp where it is installed, for a WebSocket transport that nobody here uses; that is a quarter of a
second of each program's start, so aiohttp is hidden from it.
"""

import sys

_hidden = "aiohttp" not in sys.modules
if _hidden:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # Python's own way to say "not importable"

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

if _hidden:
    del sys.modules["aiohttp"]

connect = nats.connect

__all__ = ["Client", "Msg", "NatsError", "Subscription", "connect"]
