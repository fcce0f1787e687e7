"""A program's life: startup, serve, drain, stop. One entry for all programs.

`run(main)` gives `main` an event that SIGTERM or SIGINT sets, turns a `ConfigError` into one line on stderr and exit
code 1, and leaves every other exception its traceback. What the program has counted is logged while it changes, and
once more at the end.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from stream_core import tracing
from stream_core.errors import ConfigError
from stream_core.telemetry import FAULTS

DIE_WITH_PARENT = "STREAM_DIE_WITH_PARENT"
PARENT_PID = "STREAM_PARENT_PID"
"""Who that parent is, so that its death during our imports is noticed too."""
_PR_SET_PDEATHSIG = 1

Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def run(name: str, main: Main) -> None:
    """Run a program until it is told to stop, then exit.

    Args:
        name: of the program, for its one-line error.
        main: serves until the event is set, then drains and returns.
    """
    _die_with_parent()
    try:
        code = _runner()(_with_signals(main))
    except ConfigError as error:
        field = f"{error.param}: " if error.param else ""
        sys.stderr.write(f"{name}: {field}{error.message}\n")
        code = 1
    except OSError as error:
        # A busy port or an unreadable file: the operator needs the line, not our call stack.
        sys.stderr.write(f"{name}: {error}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent dies, where the parent wants that: a killed one leaves nobody."""
    # Taken out of the environment: they are about this process, not about those that it starts.
    wanted, known = os.environ.pop(DIE_WITH_PARENT, ""), os.environ.pop(PARENT_PID, "")
    if wanted and sys.platform == "linux":
        parent = int(known or os.getppid())
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.stderr.write("the parent died before this process was ready\n")
            sys.exit(1)


def _runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    try:
        import uvloop  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _with_signals(main: Main) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reporting = loop.create_task(FAULTS.log_changes())
    served = False
    try:
        await main(stop)
        served = True
    finally:
        reporting.cancel()
        await tracing.shutdown()
        # Who could not even start has its error to say, and nothing else.
        if served or FAULTS.counts:
            FAULTS.log()
    return 0


def keep_for_good() -> None:
    """Take what exists out of garbage collections: a full one over 130,000 objects of modules stops all streams.

    For when a program, or a part that is loaded aside, has been loaded; what is freed later is freed all the same.
    """
    gc.freeze()


def announce_ready(path: Path | None, **facts: object) -> None:
    """Write the program's facts (its ports, its pid) as one JSON object, atomically: it is ready from now on.

    Args:
        path: where who started the program waits for it; None tells nobody.
        facts: JSON-serialisable.
    """
    keep_for_good()
    if path is None:
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), **facts}, file)
    Path(temporary).replace(path)
