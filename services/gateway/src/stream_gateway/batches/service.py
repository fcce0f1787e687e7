"""Files and batches of this replica: connected to the broker aside, so that chat never waits for it."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_core.cancellation import end
from stream_core.errors import ConfigError
from stream_core.settings import read_secret
from stream_core.telemetry import Once
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.attended import AttendedPipeline
from stream_gateway.batches.faults import NotConfigured, StoreAway
from stream_gateway.feedback import RecentAnswers
from stream_gateway.ledger.writer import Ledger
from stream_gateway.limits.book import Book
from stream_gateway.pipeline import Pipeline
from stream_gateway.settings import GatewaySettings
from stream_gateway.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from stream_gateway.batches.desk import Desk
    from stream_gateway.batches.files import Files
    from stream_gateway.batches.life import Life
    from stream_gateway.batches.thumbs import Thumbs
    from stream_gateway.ledger.life import Books
    from stream_gateway.responses.archive import Archive

_log = logging.getLogger(__name__)
_FIRST_S: Final = 5.0
_RETRY_S: Final = 1.0
_KEY_BYTES: Final = 32
SETTING: Final = "STREAM_GATEWAY__BATCH_KEY_FILE"


class Batches:
    """The whole of it.

    Args:
        settings: of the gateway.
        entrance: who the owners are.
        registry: the tiers.
        pipeline: the way of lines.
        attended: the way of interactive requests.
        recent: who asked what of this replica.
        spending: what it knows of the cloud's cost.
        book: what callers have used.
        ledger: of this replica.

    Raises:
        ConfigError: the key file is not as it must be.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        entrance: Entrance,
        registry: Registry,
        pipeline: Pipeline,
        attended: AttendedPipeline,
        recent: RecentAnswers,
        spending: Spending,
        book: Book,
        ledger: Ledger,
    ) -> None:
        self.settings = settings
        self.entrance = entrance
        self.registry = registry
        self.pipeline = pipeline
        self.attended = attended
        self.recent = recent
        self.spending = spending
        self.book = book
        self.ledger = ledger
        self._key = read_key(settings.batch_key_file) if settings.batch_key_file else None
        self._life: Life | None = None
        self._fault = "it has not been reached yet"
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    async def tried(self) -> None:
        """Wait, after the start, until the store has been reached or could not be: its opening takes a moment."""
        if self._key is not None and not self._tried.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_S):
                    await self._tried.wait()

    @property
    def files(self) -> "Files":
        """The files.

        Raises:
            NotConfigured: there are none in this deployment.
            StoreAway: not now.
        """
        return self._ready().files

    @property
    def desk(self) -> "Desk":
        """The batches; errors as `files`."""
        return self._ready().desk

    @property
    def archive(self) -> "Archive":
        """The stored responses; errors as `files`."""
        return self._ready().archive

    @property
    def thumbs(self) -> "Thumbs":
        """The feedback; errors as `files`."""
        return self._ready().thumbs

    @property
    def books(self) -> "Books":
        """Where the ledger is; errors as `files`."""
        return self._ready().books

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._key is not None:
            self._task = asyncio.create_task(self._live(self._key))

    async def drain(self, grace_s: float) -> None:
        """Begin no more lines, and give those that run so many seconds."""
        if self._life is not None:
            await self._life.runner.drain(grace_s)

    async def aclose(self) -> None:
        """Disconnect."""
        if self._task is not None:
            await end(self._task)

    def _ready(self) -> "Life":
        if self._key is None:
            raise NotConfigured(
                f"this gateway keeps no files and no feedback, and runs no batches: {SETTING} is not set"
            )
        if self._life is None:
            raise StoreAway(f"the store of files and batches is not available now: {self._fault}")
        return self._life

    async def _live(self, key: bytes) -> None:
        # The broker's client and the runner are not in a hurry: loaded aside, when chat is ready already.
        opening = await asyncio.to_thread(_load)
        faults = Once(_log)
        while True:
            try:
                async with opening(self, key, faults) as life:
                    self._life = life
                    self._tried.set()
                    _log.info("files and batches are ready", extra={"runs": self.settings.batches.run})
                    await self.entrance.settled()  # else a batch's owner would seem to be gone
                    await (life.runner.run() if self.settings.batches.run else life.runner.watch())
            except (ConfigError, StoreAway) as error:
                self._fault = error.message
                self._tried.set()
                faults.note("store_away", error.message)
            except Exception as error:  # noqa: BLE001  (a bug must neither end it for good nor be silent)
                self._fault = type(error).__name__
                self._tried.set()
                _log.exception("the store of files and batches stumbled")
            self._life = None
            await asyncio.sleep(_RETRY_S)


def _load() -> "Callable[[Batches, bytes, Once], AbstractAsyncContextManager[Life]]":
    from stream_gateway.batches.life import live  # noqa: PLC0415

    return live


def read_key(path: Path) -> bytes:
    """Read the service key that seals what is at the broker.

    Raises:
        ConfigError: the file is not as it must be.
    """
    try:
        key = bytes.fromhex(read_secret(path))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{path} must hold {2 * _KEY_BYTES} hex digits", param="batch_key_file")
    return key
