"""The file that keeps the plan's journal: read once, written whenever it would say something else."""

from collections.abc import Callable
from pathlib import Path

from stream_core.errors import ConfigError
from stream_core.files import write_private
from stream_hpc_dispatch import journal
from stream_hpc_dispatch.leases import Note
from stream_hpc_dispatch.plan import State


class Diary:
    """Keeps the journal.

    Args:
        file: where; its folder is there.
        note: counts a fault.
        shared: what the last leader left, where replicas share the journal: it goes before the file.
        share: gives the others what is written.
    """

    def __init__(
        self, file: Path, note: Note, *, shared: bytes | None = None, share: Callable[[bytes], None] | None = None
    ) -> None:
        self._file = file
        self._note = note
        self._shared = shared
        self._share = share
        self._written = b""
        self.found = False
        """Whether an earlier run left one."""

    def read(self, state: State, now: float) -> State:
        """Go on from what an earlier run left; called once.

        Raises:
            ConfigError: it can't be read, so it is not known what was spent of the budget.
        """
        try:
            written = self._file.read_bytes() if self._shared is None else self._shared
        except FileNotFoundError:
            return state
        except OSError as error:
            raise ConfigError(f"{self._file}: {error.strerror}", param="state_dir") from error
        self.found = True
        try:
            return journal.read(written, state, now)
        except ConfigError as error:
            raise ConfigError(
                f"{self._file}: {error.message}; without it today's node time counts from zero", param="state_dir"
            ) from error

    def write(self, state: State) -> None:
        """Write what another run must know, when it has changed."""
        written = journal.write(state)
        if written == self._written:
            return
        if self._share is not None:
            self._share(written)
        try:
            write_private(self._file, written)
        except OSError as error:
            self._note("journal_not_written", f"{self._file}: {error.strerror}")
        else:
            self._written = written
