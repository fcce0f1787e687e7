"""Where `stream up` talks to: what is waited for, on a terminal; the screen, once everything is ready."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

    from stream_cli.up import Result


class Terminal:
    """Writes to standard output; rich is imported only now that the programs load, since that takes time."""

    def __init__(self, begun: float) -> None:
        """Take the time at which the command began, by `time.monotonic`."""
        self._begun = begun
        self._status: Status | None = None

    def waiting(self, words: str) -> None:
        """Say what is waited for, on a terminal only; empty words end it."""
        if self._status is None:
            if not words or not sys.stdout.isatty():
                return
            from rich.console import Console  # noqa: PLC0415  (see the class)

            self._status = Console(highlight=False).status("")
        if words:
            self._status.update(f"starting: waiting for {words}")
            self._status.start()
        else:
            self._status.stop()

    def show(self, result: "Result") -> None:
        """Print the screen, and as its last line how long it took."""
        from rich.console import Console  # noqa: PLC0415  (see the class)

        from stream_cli.screen import show  # noqa: PLC0415

        show(Console(highlight=False), result)
        print(f"ready in {time.monotonic() - self._begun:.1f} s", flush=True)

    def say(self, line: str) -> None:
        """Print what has happened since."""
        print(line, flush=True)

    def stopping(self) -> None:
        """Say that the end has begun."""
        print("\nstopping; a second Ctrl-C does not wait", flush=True)

    def stopped(self) -> None:
        """Say that nothing runs any more."""
        print("stopped", flush=True)
