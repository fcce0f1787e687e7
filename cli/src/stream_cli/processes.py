"""Supervision: programs are started, watched and stopped in order; none outlives this process.

Each program leads a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone. `child.py` ties
its life to ours. On Linux we also adopt what a dead program leaves behind (`PR_SET_CHILD_SUBREAPER`), and end it.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from stream_cli.home import Home
from stream_cli.plan import Spec
from stream_core.errors import StreamError

_CHILD: Final = str(Path(__file__).with_name("child.py"))
_POLL_S: Final = 0.02
_TAIL: Final = 16 * 1024
_PR_SET_CHILD_SUBREAPER: Final = 36


class ProgramEnded(StreamError):
    """A program ended that should run; the message quotes the last line of its log."""

    code = "program_ended"


@dataclass
class Running:
    """A started program."""

    spec: Spec
    process: asyncio.subprocess.Process
    log: Path
    log_start: int
    """Bytes the log had before: what an earlier run wrote is not this one's last word."""
    started: float
    watch: asyncio.Task[None] | None = None
    stopping: bool = False
    ready: dict[str, Any] = field(default_factory=dict)


class Supervisor:
    """Owns the processes. Use as `async with`: at the end of the block everything is stopped."""

    def __init__(
        self,
        home: Home,
        order: Mapping[str, int],
        *,
        grace_s: float = 5.0,
        started: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        """Take the place of the logs.

        Args:
            home: the state folder.
            order: rank of each program when all are stopped, lowest first; unknown ones come first.
            grace_s: seconds between SIGTERM and SIGKILL, for each rank.
            started: called after each start with the process id of everything that runs, by name.
        """
        self._home = home
        self._order = order
        self._grace_s = grace_s
        self._started = started
        self._running: dict[str, Running] = {}
        self._ended: asyncio.Queue[Running] = asyncio.Queue()
        self._not_ours: set[int] = set()

    async def __aenter__(self) -> Self:
        """Adopt orphans from now on."""
        self._not_ours = _children()
        _adopt_orphans(adopt=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self.stop()
        _adopt_orphans(adopt=False)

    @property
    def running(self) -> Mapping[str, Running]:
        """The programs that were started and have not been stopped."""
        return self._running

    async def start(self, spec: Spec) -> None:
        """Start a program; its output goes to its log."""
        if spec.ready_file is not None:
            spec.ready_file.unlink(missing_ok=True)
        path = self._home.log(spec.name)
        with open(path, "ab", opener=_private) as log:  # noqa: ASYNC230  (a local file; Path has no opener)
            log_start = log.tell()  # now: the program writes on from here, and moves it
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _CHILD, str(os.getpid()), *spec.argv),
                env=spec.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            running = Running(spec, process, path, log_start, time.monotonic())
        self._running[spec.name] = running
        running.watch = asyncio.create_task(self._watch(running), name=f"watch {spec.name}")
        self._started({name: each.process.pid for name, each in self._running.items()})

    async def _watch(self, running: Running) -> None:
        await running.process.wait()
        if not running.stopping:
            self._ended.put_nowait(running)

    async def first_death(self) -> NoReturn:
        """Wait until a program ends that should run.

        Raises:
            ProgramEnded: always, in the end.
        """
        running = await self._ended.get()
        code, name = running.process.returncode or 0, running.spec.name
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        last = last_line(running.log, running.log_start)
        raise ProgramEnded(f"{name} {how}: {last or 'it wrote nothing'}, see {running.log}")

    async def wait_ready(self, name: str) -> dict[str, Any]:
        """Wait until a program says that it is ready; returns the facts of its ready file."""
        running = self._running[name]
        spec = running.spec
        while not running.ready:
            if spec.ready_file is not None:
                running.ready = _facts(spec.ready_file, running.process.pid)
            elif await _greets(spec.ready_port):
                running.ready = {"pid": running.process.pid, "port": spec.ready_port}
            if not running.ready:
                await asyncio.sleep(_POLL_S)
        return running.ready

    async def start_in_turn(self, specs: list[Spec], *, at_once: int, head_start_s: float) -> None:
        """Start programs, while at most some of them load at a time.

        More than there are processors would only slow down those that the others wait for.

        Args:
            specs: in order of urgency.
            at_once: how many may load; one that is ready makes room for the next.
            head_start_s: seconds after which the next starts in any case: some wait for a disk.
        """
        loading: set[asyncio.Task[Any]] = set()
        try:
            for spec in specs:
                if len(loading) >= at_once:
                    _, loading = await asyncio.wait(loading, timeout=head_start_s, return_when=asyncio.FIRST_COMPLETED)
                await self.start(spec)
                loading.add(asyncio.create_task(self.wait_ready(spec.name)))
        finally:
            for task in loading:
                task.cancel()

    async def stop_programs(self, names: list[str]) -> None:
        """Stop some programs together: SIGTERM, and SIGKILL to what is left of them after the grace."""
        group = [self._running[name] for name in names if name in self._running]
        for running in group:
            running.stopping = True
            if running.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    running.process.terminate()
        watches = [running.watch for running in group if running.watch is not None]
        if watches:
            await asyncio.wait(watches, timeout=self._grace_s)
        for running in group:
            _kill_session(running)
        if watches:
            await asyncio.wait(watches)
        for running in group:
            del self._running[running.spec.name]
            if running.spec.ready_file is not None:
                running.spec.ready_file.unlink(missing_ok=True)

    async def stop(self) -> None:
        """Stop everything in order, then end what dead programs left behind."""
        while self._running:
            ranks = {name: self._order.get(name, -1) for name in self._running}
            lowest = min(ranks.values())
            await self.stop_programs([name for name, rank in ranks.items() if rank == lowest])
        await self._end_orphans()

    async def _end_orphans(self) -> None:
        """End what dead programs left behind, and what those leave behind in turn."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + self._grace_s
            told: set[int] = set()
            while left := _children() - self._not_ours:
                if time.monotonic() > deadline:
                    break
                for pid in left - told:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                told |= left
                await asyncio.sleep(_POLL_S)

    def kill(self) -> None:
        """Kill everything at once; `stop` then has only to collect it."""
        for running in self._running.values():
            running.stopping = True
            _kill_session(running)
        for pid in _children() - self._not_ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _kill_session(running: Running) -> None:
    """SIGKILL a program and what shares its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(running.process.pid, signal.SIGKILL)


def _facts(path: Path, pid: int) -> dict[str, Any]:
    """Read a ready file; one of another process says nothing."""
    try:
        facts = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and facts.get("pid") == pid else {}


async def _greets(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return bool(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def last_line(log: Path, start: int = 0) -> str:
    """Return the last line that a program wrote, as people read it.

    Args:
        log: its file; JSON lines give their message, a traceback its last line.
        start: bytes to leave out, written by earlier runs.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    text = next((line.strip() for line in reversed(lines) if line.strip()), "")
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if not isinstance(fields, dict) or "msg" not in fields:
        return text
    cause = str(fields.get("exception", "")).strip().splitlines()[-1:]
    return ": ".join([str(fields["msg"]), *cause])


def _children() -> set[int]:
    """List our living children (Linux)."""
    if sys.platform != "linux":
        return set()
    children = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                children.add(int(stat.parent.name))
    return children


def _adopt_orphans(adopt: bool) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))
